import io

import pytest
from PIL import Image

from jobs.sandbox.images import Recipe, UnreadableInput, bomb, read_input, render, size_for


def recipe(**fields):
    return Recipe(**{"title": "t", "prompt": "p", "inputs": (), "width": 256, "height": 256, "format": "JPEG"} | fields)


def opened(data):
    return Image.open(io.BytesIO(data))


def test_the_same_task_and_index_give_the_same_bytes():
    assert render(recipe(), "a", 0) == render(recipe(), "a", 0)


def test_tasks_and_indexes_differ_in_bytes():
    assert len({render(recipe(), task, index) for task in "ab" for index in (0, 1)}) == 4


def test_another_prompt_is_another_picture():
    assert opened(render(recipe(), "a", 0)).tobytes() != opened(render(recipe(prompt="q"), "a", 0)).tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_picture_has_format_and_size_of_its_recipe(kind):
    image = opened(render(recipe(format=kind, width=120, height=80), "a", 0))
    image.load()
    assert (image.format, image.size) == (kind, (120, 80))


def test_an_input_colors_the_picture(make_picture):
    def redness(color):
        image = opened(render(recipe(inputs=(read_input(make_picture(color)),)), "a", 0)).convert("RGB")
        red, _, blue = image.resize((1, 1)).getpixel((0, 0))
        return red - blue

    assert redness("red") > redness("blue") + 80


def test_what_a_font_lacks_is_no_error():
    assert render(recipe(prompt="写真 📷", width=96, height=96), "a", 0)


def test_bytes_that_are_no_image_are_refused(make_picture):
    for data in (b"", b"no image", make_picture()[:-30]):
        with pytest.raises(UnreadableInput):
            read_input(data)


def test_a_ratio_becomes_a_size():
    assert (size_for(2, 100), size_for(0.5, 100), size_for(1, 100)) == ((100, 50), (50, 100), (100, 100))


def test_the_bomb_is_small_and_claims_to_be_huge():
    data = bomb()
    assert len(data) < 1_000_000
    with pytest.raises(Image.DecompressionBombError):
        opened(data)
