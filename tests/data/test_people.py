"""Who is in a folder or a list, and that every bad list is refused by name and line."""

import os
from pathlib import Path

import pytest

from opom_jax.data.people import Person, flat_images, from_folder, from_lists
from opom_jax.errors import InputError


def make(root: Path, *names: str) -> list[Path]:
    """Empty files: this module opens no photo."""
    paths = [root / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def refusal(function, *args, **kwargs) -> str:
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_folder_sorts_people_and_photos_and_splits_them(tmp_path):
    make(tmp_path, "bob/2.PNG", "bob/10.jpg", "bob/1.tiff", "ann/z.webp", "ann/a.JPeG")
    people = from_folder(tmp_path, 2)
    assert [person.name for person in people] == ["ann", "bob"]
    assert people[0] == Person("ann", (tmp_path / "ann/a.JPeG", tmp_path / "ann/z.webp"), ())
    assert [photo.name for photo in people[1].train] == ["1.tiff", "10.jpg"]
    assert [photo.name for photo in people[1].probes] == ["2.PNG"]
    assert from_folder(str(tmp_path), 2, limit=1) == people[:1]


def test_folder_ignores_what_is_no_photo_but_keeps_dangling_links(tmp_path):
    make(tmp_path, "ann/1.jpg", "ann/.2.jpg", "ann/notes.txt", "ann/jpg", "ann/d.jpg/3.txt")
    make(tmp_path, "top.jpg", ".git/1.jpg")
    (tmp_path / "ann/4.png").symlink_to(tmp_path / "gone.png")
    (person,) = from_folder(tmp_path, 1)
    assert [photo.name for photo in person.train + person.probes] == ["1.jpg", "4.png"]


def test_folder_follows_links(tmp_path):
    make(tmp_path, "real/x/1.jpg")
    (tmp_path / "link").mkdir()
    (tmp_path / "link/ann").symlink_to(tmp_path / "real/x")
    assert from_folder(tmp_path / "link", 1)[0].train == (tmp_path / "link/ann/1.jpg",)


def test_folder_refusals(tmp_path):
    make(tmp_path, "people/ann/1.jpg", "people/bob/readme.txt", "file")
    (tmp_path / "empty").mkdir()
    assert "people/bob' has no photos" in refusal(from_folder, tmp_path / "people", 1)
    assert len(from_folder(tmp_path / "people", 1, limit=1)) == 1
    assert "no sub-folders" in refusal(from_folder, tmp_path / "empty", 1)
    for bad in ("file", "gone", "nul\0", "new\nline"):
        assert "give a readable folder" in refusal(from_folder, tmp_path / bad, 1)
    assert "limit is -1" in refusal(from_folder, tmp_path / "people", 1, limit=-1)
    assert "train_per_person is -1" in refusal(from_folder, tmp_path / "people", -1)


def test_unreadable_folder_and_list(tmp_path):
    (photo,) = make(tmp_path, "people/ann/1.jpg")
    lines = write(tmp_path / "list", "ann/1.jpg")
    photo.parent.chmod(0)
    lines.chmod(0)
    if os.access(lines, os.R_OK):
        pytest.skip("this user (root) may read every file")
    try:
        assert "Permission denied" in refusal(from_folder, tmp_path / "people", 1)
        assert "Permission denied" in refusal(from_lists, tmp_path / "people", lines, 1)
    finally:
        photo.parent.chmod(0o700)


def test_lists_pair_people_by_position(tmp_path):
    a = make(tmp_path, "train/ann/1.jpg", "train/ann/2.jpg", "train/bob/1.jpg", "train/bob/2.jpg")
    b = make(tmp_path, "test/ann/9.jpg", "test/bob/9.jpg")
    train = write(tmp_path / "a", *(str(path.relative_to(tmp_path)) for path in a))
    test = write(tmp_path / "b", *(str(path.relative_to(tmp_path)) for path in b))
    people = from_lists(tmp_path, train, 2, test, 1)
    assert people == [
        Person("ann", (a[0], a[1]), (b[0],)),
        Person("bob", (a[2], a[3]), (b[1],)),
    ]
    assert from_lists(tmp_path, train, 2, limit=1) == [Person("ann", (a[0], a[1]), ())]
    assert from_lists(tmp_path, train, 0, test, 0) == people


def test_lists_of_the_same_people_in_another_order_are_refused(tmp_path):
    make(tmp_path, "train/ann/1.jpg", "train/bob/1.jpg", "test/ann/2.jpg", "test/bob/2.jpg")
    train = write(tmp_path / "a", "train/ann/1.jpg", "train/bob/1.jpg")
    test = write(tmp_path / "b", "test/bob/2.jpg", "test/ann/2.jpg")
    assert "'ann' in the training list and 'bob'" in refusal(
        from_lists, tmp_path, train, 1, test, 1
    )


def test_a_training_photo_is_no_test_photo(tmp_path):
    make(tmp_path, "ann/1.jpg", "bob/1.jpg")
    train = write(tmp_path / "a", "ann/1.jpg", "bob/1.jpg")
    assert "1.jpg', a training photo" in refusal(from_lists, tmp_path, train, 1, train, 1)


def test_lists_keep_their_order_and_may_be_ragged(tmp_path):
    make(tmp_path, "b/2.jpg", "b/1.jpg", "a/1.jpg")
    lines = write(tmp_path / "list", "b/2.jpg", "b/1.jpg", "a/1.jpg")
    people = from_lists(tmp_path, lines, 0)
    assert [(p.name, [photo.name for photo in p.train]) for p in people] == [
        ("b", ["2.jpg", "1.jpg"]),
        ("a", ["1.jpg"]),
    ]


def test_shared_folder_names_are_numbered_for_all(tmp_path):
    make(tmp_path, "1.jpg", "2.jpg", "x/3.jpg")
    lines = write(tmp_path / "list", "1.jpg", "x/../2.jpg", "x/3.jpg")
    top = tmp_path.name
    names = [person.name for person in from_lists(tmp_path, lines, 1)]
    assert names == [f"00000_{top}", f"00001_{top}", "00002_x"]
    assert [p.name for p in from_lists(tmp_path, lines, 1, limit=1)] == names[:1]


def test_lists_tolerate_bom_crlf_blanks_and_spaces_in_names(tmp_path):
    (spaced, accented) = make(tmp_path, "ann/my photo.jpg", "ann/é\u2028.jpg")
    lines = tmp_path / "list"
    text = "\n  ann/my photo.jpg \r\n\r\n \t\r\nann/é\u2028.jpg"
    lines.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert from_lists(tmp_path, lines, 2)[0].train == (spaced, accented)


def test_megaface_takes_the_second_column(tmp_path):
    (photo,) = make(tmp_path, "ann/1.jpg")
    lines = write(tmp_path / "list", "0 ann/1.jpg 17")
    assert from_lists(tmp_path, lines, 1, list_format="megaface")[0].train == (photo,)
    assert flat_images(lines, tmp_path, "megaface") == [photo]
    short = write(tmp_path / "short", "0 ann/1.jpg", "ann/1.jpg")
    message = refusal(flat_images, short, tmp_path, "megaface")
    assert "line 2 of" in message and "second column" in message
    assert "list_format is 'lfw'" in refusal(flat_images, lines, tmp_path, "lfw")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"ann/\xff.jpg", "not UTF-8"),
        (b"ann/1.jpg\0", "NUL"),
        (b"/etc/hostname", "leaves the root"),
        (b"../out.jpg", "leaves the root"),
        (b"ann/../../out.jpg", "leaves the root"),
        (b"..", "leaves the root"),
        (b"ann/gone.jpg", "'ann/gone.jpg', which is no file"),
        (b"ann", "'ann', which is no file"),
        (b"x" * 5000, "no file"),
        (b"ann/1.jpg\rann/1.jpg", "no file"),
    ],
)
def test_bad_lines_are_named_in_either_list(tmp_path, line, reason):
    make(tmp_path, "root/ann/1.jpg", "out.jpg")
    good, bad = write(tmp_path / "good", "ann/1.jpg"), tmp_path / "bad"
    bad.write_bytes(b"ann/1.jpg\n\n" + line + b"\n")
    for message in (
        refusal(from_lists, tmp_path / "root", bad, 2),
        refusal(from_lists, tmp_path / "root", good, 1, bad, 2),
        refusal(flat_images, bad, tmp_path / "root"),
    ):
        assert f"line 3 of '{bad}'" in message and reason in message


def test_dots_inside_the_root_and_in_names_are_allowed(tmp_path):
    make(tmp_path, "ann/1.jpg", "..ann/1.jpg")
    lines = write(tmp_path / "list", "..ann/1.jpg", "ann/../ann/1.jpg")
    assert len(flat_images(lines, tmp_path)) == 2


def test_counts_that_do_not_fit_are_refused(tmp_path):
    make(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg")
    three = write(tmp_path / "three", "a/1.jpg", "a/2.jpg", "b/1.jpg")
    one = write(tmp_path / "one", "a/1.jpg")
    assert "3 photos, not a multiple of 2" in refusal(from_lists, tmp_path, three, 2)
    assert "not a multiple of 2" in refusal(from_lists, tmp_path, three, 3, three, 2)
    message = refusal(from_lists, tmp_path, three, 1, one, 1)
    assert "three' has 3 people" in message and "one' has 1" in message
    assert "test_per_person is -1" in refusal(from_lists, tmp_path, three, 1, one, -1)


def test_unusable_list_files_are_refused(tmp_path):
    blank = tmp_path / "blank"
    blank.write_bytes(b"\xef\xbb\xbf\r\n \n")
    assert "blank' is empty" in refusal(from_lists, tmp_path, blank, 1)
    assert "blank' is empty" in refusal(flat_images, blank, tmp_path)
    for bad in ("gone", "nul\0", ".", "blank/x"):
        assert "give a readable list" in refusal(from_lists, tmp_path, tmp_path / bad, 1)
    assert "gone' cannot be read" in refusal(flat_images, tmp_path / "gone")


def test_flat_folder_is_searched_once_each_and_sorted(tmp_path):
    made = make(tmp_path, "b/c/1.jpg", "b/2.png", "a.jpg", "b.jpg", "notes.txt", ".h/1.jpg")
    (tmp_path / "b/up").symlink_to(tmp_path)
    assert flat_images(tmp_path) == sorted(made[:4])
    assert "has no images" in refusal(flat_images, make(tmp_path, "none/x.txt")[0].parent)


def test_flat_list_keeps_its_order(tmp_path):
    made = make(tmp_path, "z/1.jpg", "a/1.jpg")
    assert flat_images(write(tmp_path / "list", "z/1.jpg", "a/1.jpg"), tmp_path) == made
