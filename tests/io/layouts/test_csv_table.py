"""Data sets by a CSV table."""

import pytest

from medseg.errors import MedsegError
from medseg.io.layouts import table


def write(root, text, *files, name="cases.csv"):
    (root / name).write_text(text)
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def labels(root, case):
    return [(file.path.relative_to(root).as_posix(), file.value) for file in case.labels]


def test_a_table_with_everything(tmp_path):
    write(
        tmp_path,
        "id,image_flair,image_t1,label,group,split,annotated,site,scanner\n"
        "p1,x/1_f.nii,x/1_t.nii,y/1.nii,anna,train,,Ulm,A\n"
        "p2,x/2_f.nii,x/2_t.nii,y/2.nii,bert,val,liver;tumour,Bonn,\n",
        *(f"x/{case}_{channel}.nii" for case in "12" for channel in "ft"),
        "y/1.nii",
        "y/2.nii",
    )
    dataset = table(tmp_path)
    first, second = dataset.cases
    assert (first.id, first.group, first.annotated) == ("p1", "anna", None)
    assert first.images == (tmp_path / "x/1_f.nii", tmp_path / "x/1_t.nii")
    assert labels(tmp_path, first) == [("y/1.nii", None)]
    assert first.columns == {"split": "train", "site": "Ulm", "scanner": "A"}
    assert second.annotated == ("liver", "tumour")
    assert (dataset.channels, dataset.modality, dataset.labels) == (("flair", "t1"), ("mri", "mri"), None)
    assert (dataset.endings, dataset.problems) == (None, ())


@pytest.mark.parametrize(
    ("columns", "images", "annotation"),
    [
        ("image,label", ["image"], ["label"]),
        ("mask,image", ["image"], ["mask"]),
        ("image:ct,image:pet,mask_organs,mask_lesions", ["image:ct", "image:pet"], ["mask_organs", "mask_lesions"]),
        ("image,image_date,label,label_by", ["image"], ["label"]),
    ],
)
def test_columns_of_files_by_their_usual_names(tmp_path, columns, images, annotation):
    names = columns.split(",")
    write(tmp_path, f"id,{columns}\np1,{','.join(f'{place}.nii' for place in range(len(names)))}\n")
    for place in range(len(names)):
        (tmp_path / f"{place}.nii").touch()
    (case,) = table(tmp_path).cases
    assert case.images == tuple(tmp_path / f"{names.index(name)}.nii" for name in images)
    assert [file.path for file in case.labels] == [tmp_path / f"{names.index(name)}.nii" for name in annotation]
    assert set(case.columns) == set(names) - {*images, *annotation}


def test_columns_of_files_by_any_name_in_the_order_given(tmp_path):
    write(tmp_path, "a,b,c,d\n1.nii,2.nii,3.nii,4.nii\n", *(f"{number}.nii" for number in range(1, 5)))
    dataset = table(tmp_path, image_columns=["b", "a"], label_columns=["d", "c"])
    (case,) = dataset.cases
    assert [path.name for path in case.images] == ["2.nii", "1.nii"]
    assert labels(tmp_path, case) == [("4.nii", None), ("3.nii", None)]
    assert dataset.channels == ("b", "a")


def test_a_mask_a_class_and_what_an_empty_cell_means(tmp_path):
    text = "id,image,label,liver_mask,tumour_mask\na,a.nii,x.nii,l.nii,t.nii\nb,b.nii,x.nii,l.nii,\nc,c.nii,x.nii,,\n"
    write(tmp_path, text, "a.nii", "b.nii", "c.nii", "l.nii", "t.nii")
    classes = {"tumour": "tumour_mask", "liver": "liver_mask"}
    dataset = table(tmp_path, class_columns=classes, missing_masks="unannotated")
    assert [labels(tmp_path, case) for case in dataset.cases] == [[("t.nii", 1), ("l.nii", 2)], [("l.nii", 2)]]
    assert [case.annotated for case in dataset.cases] == [None, ("liver",)]
    assert list(dataset.labels.items()) == [("background", 0), ("tumour", 1), ("liver", 2)]
    assert [case.annotated for case in table(tmp_path, class_columns=classes, missing_masks="empty").cases] == [
        None
    ] * 2
    strict = table(tmp_path, class_columns=classes)
    assert [case.id for case in strict.cases] == ["a"]
    assert "row 2: b has no mask of tumour (tumour_mask)" in strict.problems[0]


def test_rows_without_annotation_are_passed_over_with_a_word(tmp_path, caplog):
    caplog.set_level("INFO")
    write(tmp_path, "image,label,split\na.nii,l.nii,train\nb.nii,,\nc.nii,l.nii,val\n", "a.nii", "c.nii", "l.nii")
    dataset = table(tmp_path)
    assert ([case.id for case in dataset.cases], dataset.problems) == (["a", "c"], ())
    assert "1 of 3 rows have no annotation" in caplog.text
    assert dataset.unlabelled == ()  # its image is not there


def test_rows_without_annotation_are_the_unlabelled_cases(tmp_path):
    write(tmp_path, "id,image,label,group\na,a.nii,l.nii,p\nb,b.nii,,q\na,b.nii,,p\n", "a.nii", "b.nii", "l.nii")
    dataset = table(tmp_path)
    assert [case.id for case in dataset.cases] == ["a"]
    assert [(case.id, case.group, case.labels) for case in dataset.unlabelled] == [("b", "q", ())]


def test_paths_are_relative_to_the_root_or_the_table_or_in_full(tmp_path):
    outside = tmp_path / "elsewhere"
    write(tmp_path, "", "elsewhere/c.nii", "root/images/a.nii", "root/tables/b.nii", "root/l.nii")
    text = f"image,label\nimages/a.nii,l.nii\nb.nii,l.nii\n{outside}/c.nii,l.nii\n"
    write(tmp_path / "root/tables", text)
    for name in ("tables/cases.csv", str(tmp_path / "root/tables/cases.csv")):
        dataset = table(tmp_path / "root", name)
        assert [case.images[0].relative_to(tmp_path).as_posix() for case in dataset.cases] == [
            "root/images/a.nii",
            "root/tables/b.nii",
            "elsewhere/c.nii",
        ]


@pytest.mark.parametrize(
    ("images", "ids", "endings"),
    [
        (["{}.nii"], ["a", "b"], None),
        (["{}_ct.nii"], ["a_ct", "b_ct"], None),
        (["{}/t1.nii", "{}/t2.nii"], ["a", "b"], (("/t1",), ("/t2",))),
        (["x/{}_t1.nii", "x/{}_t2.nii.gz"], ["a", "b"], (("_t1",), ("_t2",))),
    ],
)
def test_the_name_of_the_images_is_the_id_without_one(tmp_path, images, ids, endings):
    rows = [",".join([*(name.format(case) for name in images), "l.nii"]) for case in "ab"]
    header = ",".join([*(f"image_{place}" for place in range(len(images))), "label"])
    write(tmp_path, "\n".join([header, *rows]), "l.nii", *(name.format(case) for name in images for case in "ab"))
    dataset = table(tmp_path)
    assert [case.id for case in dataset.cases] == ids
    assert dataset.endings == endings


def test_all_that_is_amiss_is_listed_beside_the_whole_cases(tmp_path):
    text = (
        "id,image,label,group\na,a.nii,l.nii,x\nb,b.nii,l.nii,x\nb,a.nii,l.nii,x\nc,absent.nii,l.nii,x\n"
        "d,,l.nii,x\ne,a.nii,l.nii,\n"
    )
    write(tmp_path, text, "a.nii", "b.nii", "l.nii")
    dataset = table(tmp_path)
    assert [case.id for case in dataset.cases] == ["a"]
    assert sorted(dataset.problems) == [
        "b is listed 2 times",
        f"c: {tmp_path}/absent.nii is missing",
        "cases.csv, row 5: no file in image",
        "cases.csv, row 6: e has no group, though the table has the column: its patient would be unknown",
    ]


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("image,label\n", {}, "cases.csv has no rows"),
        ("scan,label\na,b\n", {}, "has no column 'image', it has scan, label. Name dataset.image_columns"),
        ("image,truth\na,b\n", {}, "has no column 'label', it has image, truth. Name dataset.label_columns"),
        ("image,label\na,b\n", {"image_columns": ["imag"]}, "image_columns: .* no column 'imag'.*Did you mean 'image'"),
        ("image,label\na,b\n", {"class_columns": {"a": "lable"}}, "class_columns: .* 'lable'.*Did you mean 'label'"),
        ("image,label\na,b\n", {"class_columns": {"a": "label"}, "label_columns": ["label"]}, "exclude each other"),
        ("image,label\na,b\n", {"table": "absent.csv"}, "dataset.table=.*absent.csv cannot be read"),
    ],
)
def test_unusable_tables_are_refused(tmp_path, text, arguments, message):
    write(tmp_path, text)
    with pytest.raises(MedsegError, match=message):
        table(tmp_path, **arguments)
