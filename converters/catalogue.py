"""Where the weights of networks come from, and how well networks match the originals: data only.

`PUBLIC` are files that `models fetch` brings; `ORIGINS` says of all other networks of the registry
which file to bring; `PARAMETERS` counts, because building the deep networks takes seconds. Hashes
are of the files as published, none of which is part of this package. `listing.py` makes one table
of it all.
"""

from typing import NamedTuple
from urllib.parse import quote

HOST = "https://raw.githubusercontent.com"


class File(NamedTuple):
    """A file of a repository: its path there, bytes and SHA-256 (hex)."""

    path: str
    size: int
    sha256: str


class Public(NamedTuple):
    """A network whose weights lie in a public repository.

    Attributes:
      repository: owner and name on GitHub.
      commit: in full.
      licence: of the repository; the photos it was trained on have terms of their own.
      files: the weights, then MXNet's symbol file if there is one.
      rank_1: percent on 96 people of LFW among 4,000 others, one photo each in the gallery.
      difference: from embeddings of 32 photos by the original's code, see `Row`.
      graph: "" if the network is of the registry, under its name there; else what the files are.
      scaling: of a graph, a name of `SCALINGS`; None if it does that itself.
      embedding: of a graph.
    """

    repository: str
    commit: str
    licence: str
    files: tuple[File, ...]
    rank_1: float
    difference: str
    graph: str = ""
    scaling: str | None = None
    embedding: int = 128

    def url(self, file: File) -> str:
        """Where one of its files is."""
        return f"{HOST}/{self.repository}/{self.commit}/{quote(file.path)}"


_LH = (
    "LH-and-FPGA/MobileFaceNet_Pytorch",
    "7bac8f075498d549bfe413a21aeb96bb542365f3",
    "none given",
)

PUBLIC: dict[str, Public] = {
    "mobilefacenet_xiaoccer": Public(
        "Xiaoccer/MobileFaceNet_Pytorch",
        "26bd8d262017e472a3c7f56d62929e2138a70aeb",
        "none given",
        (
            File(
                "model/best/068.ckpt",
                4_130_855,
                "e839247cdbdfc023fb7cadeaf53a4549d50c8fc24ad154c02e35920ea8910d99",
            ),
        ),
        93.64,
        "9e-7",
    ),
    "mobilefacenet_bubbliiiing": Public(
        "bubbliiiing/arcface-pytorch",
        "0faafe28eba416738893f1426b15774cdaa6d3ab",
        "MIT",
        (
            File(
                "model_data/arcface_mobilefacenet.pth",
                4_155_613,
                "4c08e11a0a2bbf299910210da647c7d8105c348f4c533868e1710dbcf7b22480",
            ),
        ),
        90.55,
        "9e-7",
    ),
    "mobilefacenet_foamliu": Public(
        "delldu/MobileFaceNet",
        "db09b1d35681b1e3d4db2a70d29f812e6619ec3c",
        "Apache-2.0",
        (
            File(
                "project/mobile_face/models/mobile_face.pth",
                4_137_839,
                "663eefb6affe93a358d21ccc8f6337f6399fa01073f863b8400570af053ebe35",
            ),
        ),
        99.01,
        "1e-6",
    ),
    "mobilefacenet_foamliu_onnx": Public(
        "nytdevansh/V-Face",
        "ce7dd1b29166b24b10dea100f2f802ced180ca5c",
        "GPL-3.0",
        (
            File(
                "model/mobilefacenet.onnx",
                3_998_450,
                "85cdeb7368ed6a1e9cbaaa6f283c6b2439f1fa533c17450bfdc7f357d285d5d1",
            ),
        ),
        99.01,
        "1.4e-6",
        graph="ONNX",
        scaling="imagenet",
    ),
    "mobilefacenet_y1": Public(
        "honghuCode/mobileFacenet-ncnn",
        "f0d060cc1c0a3d027ecbb43904c525e4713a91b8",
        "none given (insightface: non-commercial research)",
        (
            File(
                "model-0000.params",
                4_115_182,
                "b151f97e392e68cb540fb9710a91a574a4187d491eeda77d1c1799ae6dc3b82b",
            ),
            File(
                "model-symbol.json",
                107_943,
                "967a17dd970632480609caac8b0a809f4784f1caa333a1d801365f7d34517e55",
            ),
        ),
        99.18,
        "9e-7",
        graph="MXNet",
    ),
    "mobilefacenet_lh377k": Public(
        *_LH,
        (
            File(
                "model/CASIA_B512_v2_20260222_135854/051.ckpt",
                1_598_745,
                "bdfe8dd944b7079786e6a50f5d59857c5a34f39028d3d1d488c080118eebd87c",
            ),
        ),
        87.35,
        "1.2e-6",
    ),
    "mobilefacenet_lh185k": Public(
        *_LH,
        (
            File(
                "model/CASIA_B512_v2_20260222_160714/051.ckpt",
                825_361,
                "6d1365a8141e59c27eaf9d4877cb2d5c014562bd76e98e48b017a97931088b82",
            ),
        ),
        83.85,
        "1.0e-6",
    ),
}


class Origin(NamedTuple):
    """Where networks of the registry come from.

    Attributes:
      family: the architecture.
      source: who published it.
      licence: of the code; "" if there are no weights.
      file: what to bring, "" if there is nothing to bring or `PUBLIC` has it.
      difference: as in `Row`.
    """

    family: str
    source: str
    licence: str = ""
    file: str = ""
    difference: str = ""


_EVOLVE = ("IR", "ZhaoJ9014/face.evoLVe", "MIT")
_PLAIN, _GATED = r"backbone_ir\1_*.pth or Backbone_IR_\1_*.pth", r"Backbone_IR_SE_\1_*.pth"
_INSIGHT = ("insightface, arcface_torch", "non-commercial research")
_PROFACE = ("PRO-Face, of wujiyang/Face_Pytorch", "none given")
_PAPER = ("the paper's targets (MXNet)", "")
# Pattern of a name -> its origin; \1 in `file` is the pattern's group. The first that fits counts.
ORIGINS: tuple[tuple[str, Origin], ...] = (
    (r"ir_(?:se_)?tiny", Origin("IR", "for tests")),
    (r"ir_(50|101)", Origin(*_EVOLVE, _PLAIN, "< 1e-5")),
    (r"ir_se_(50)", Origin(*_EVOLVE, _GATED, "< 1e-5")),
    (r"ir_(\d+)", Origin(*_EVOLVE, _PLAIN, "< 1e-4")),
    (r"ir_se_(\d+)", Origin(*_EVOLVE, _GATED, "< 1e-4")),
    (r"ir_(\d+)_224", Origin(*_EVOLVE, r"Backbone_IR_\1_*.pth of 224x224", "< 1e-4")),
    (r"ir_se_(\d+)_224", Origin(*_EVOLVE, r"Backbone_IR_SE_\1_*.pth of 224x224", "< 1e-4")),
    (r"iresnet_(100)", Origin("IR", *_INSIGHT, r"backbone.pth of r\1", "3e-6")),
    (r"iresnet_(\d+)", Origin("IR", *_INSIGHT, r"backbone.pth of r\1")),
    (r"cbam_ir_50", Origin("IR", *_PROFACE, "PRO-Face's IResNet50", "3e-6")),
    (r"cbam_ir_se_50", Origin("IR", *_PROFACE, "PRO-Face's SEResNet50", "3e-6")),
    (
        r"mobilefacenet_proface",
        Origin("MobileFaceNet", *_PROFACE, "PRO-Face's MobileFaceNet", "3e-6"),
    ),
    (r"mobilefacenet_.*", Origin("MobileFaceNet", "")),
    (
        r"inception_resnet_v1",
        Origin(
            "Inception-ResNet-v1",
            "timesler/facenet-pytorch",
            "MIT",
            "20180402-114759-vggface2.pt",
            "3e-6",
        ),
    ),
    (r"mobilenet", Origin("MobileNet", *_PAPER, "m1_*.params", "< 1e-4")),
    (r"(?:se_)?resnet_50", Origin("ResNet", *_PAPER, "*.params", "< 1e-4")),
    (r"inception_resnet", Origin("Inception-ResNet-v2", *_PAPER, "i1_*.params", "< 1e-4")),
    (r"ir_small", Origin("IR", "")),
    (r"mobilenet_small", Origin("MobileNet", "")),
    (r"se_resnet_small", Origin("ResNet", "")),
    (r"inception_resnet_small", Origin("Inception-ResNet-v2", "")),
)

# Learned numbers, without the statistics of batch norm.
PARAMETERS: dict[str, int] = {
    "ir_50": 43_574_976,
    "ir_101": 65_129_792,
    "ir_152": 70_737_600,
    "ir_se_50": 43_797_696,
    "ir_se_101": 65_502_016,
    "ir_50_224": 82_110_144,
    "ir_101_224": 103_664_960,
    "ir_152_224": 109_272_768,
    "ir_se_50_224": 82_332_864,
    "ir_se_101_224": 104_037_184,
    "ir_tiny": 17_745_856,
    "ir_se_tiny": 17_789_376,
    "mobilefacenet_xiaoccer": 999_552,
    "mobilefacenet_lh377k": 366_976,
    "mobilefacenet_lh185k": 178_528,
    "mobilefacenet_bubbliiiing": 1_003_136,
    "mobilefacenet_proface": 1_003_136,
    "mobilefacenet_foamliu": 999_936,
    "iresnet_18": 24_025_600,
    "iresnet_34": 34_139_328,
    "iresnet_50": 43_590_848,
    "iresnet_100": 65_156_160,
    "iresnet_200": 118_833_920,
    "cbam_ir_50": 43_590_848,
    "cbam_ir_se_50": 43_813_568,
    "inception_resnet_v1": 23_482_624,
    "mobilenet": 28_900_160,
    "se_resnet_50": 43_819_608,
    "resnet_50": 43_590_336,
    "inception_resnet": 167_646_728,
    "ir_small": 493_648,
    "mobilenet_small": 417_120,
    "se_resnet_small": 447_000,
    "inception_resnet_small": 465_584,
    "mobilefacenet_foamliu_onnx": 990_016,
    "mobilefacenet_y1": 1_003_136,
}
