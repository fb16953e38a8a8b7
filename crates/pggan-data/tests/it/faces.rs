//! `--align` and `--recipe celebahq`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};
use md5::{Digest as _, Md5};
use pggan_data::Store;

use crate::support::{Space, snapshot};

/// CelebA and deltas of two images, as `make.py` there makes them.
fn celebahq() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/faces/celebahq")
}

fn md5(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// The columns of `image_list.txt` behind the first two.
fn listed() -> Vec<[String; 3]> {
    let text = fs::read_to_string(celebahq().join("deltas/image_list.txt")).unwrap();
    let words = |line: &str| line.split(' ').skip(2).map(String::from).collect::<Vec<_>>();
    text.lines().skip(1).map(|line| words(line).try_into().unwrap()).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let path = item.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, to).unwrap();
        }
    }
}

/// From the JPEG files and the deltas to the bytes that other programs made: libjpeg 8d, Pillow 3.1.1, `SciPy` and
/// a Fernet of others.
#[test]
fn celebahq_with_deltas() {
    let space = Space::new();
    copy(&celebahq(), &space.file(""));
    let list = space.file("deltas/image_list.txt");
    let sums = "0123456789abcdef0123456789abcdef 0123456789abcdef0123456789abcdef";
    let more = format!("2 1 000002.jpg {sums}\n3 9 000010.jpg {sums}\n");
    space.write("deltas/image_list.txt", (fs::read_to_string(&list).unwrap() + &more).as_bytes());
    let arguments =
        ["prepare", "--recipe=celebahq", "--celeba=CelebA", "--deltas=deltas", "--dest=out"];
    let run = space.run(&arguments);
    for words in [
        "000002.jpg: aligned, it has the MD5",
        "image_list.txt says 0123456789abcdef0123456789abcdef",
        "000010.jpg: No such file",
    ] {
        assert!(run.stderr.contains(words), "{words}: {}", run.stderr);
    }
    let said = run.ok();
    assert!(
        said.contains("2 images at 4x4 to 1024x1024") && said.contains("2 bad files"),
        "{said}"
    );
    let store = Store::open(space.file("out")).unwrap();
    for (index, [_, _, finished]) in listed().iter().enumerate() {
        assert_eq!(md5(&store.image(10, index as u64).unwrap()), *finished, "image {index}");
    }
    assert_eq!(
        fs::read_to_string(space.file("out/names.txt")).unwrap(),
        "000003.jpg\n000001.jpg\n"
    );

    // The same again is there already; without deltas it is something else.
    assert!(space.run(&arguments).ok().contains("already prepared"));
    let error = space.run(&[&arguments[..], &["--no-deltas"]].concat()).error();
    assert!(error.contains("other landmarks or deltas"), "{error}");
}

#[test]
fn celebahq_without_deltas() {
    let space = Space::new();
    let (celeba, deltas) = (celebahq().join("CelebA"), celebahq().join("deltas"));
    let celeba = format!("--celeba={}", celeba.display());
    let deltas = format!("--deltas={}", deltas.display());
    let prepare = |more: &[&str]| {
        space.run(&[&["prepare", "--recipe=celebahq", "--no-deltas", &celeba], more].concat())
    };
    prepare(&["--dest=listed", &deltas]).ok();
    let store = Store::open(space.file("listed")).unwrap();
    assert_eq!(store.images(), 2);
    for (index, [_, aligned, _]) in listed().iter().enumerate() {
        assert_eq!(md5(&store.image(10, index as u64).unwrap()), *aligned, "image {index}");
    }
    prepare(&["--dest=all"]).ok();
    let all = Store::open(space.file("all")).unwrap();
    assert_eq!(all.images(), 3);
    assert!(all.image(10, 0).unwrap() == store.image(10, 1).unwrap(), "000001.jpg");
    assert!(all.image(10, 2).unwrap() == store.image(10, 0).unwrap(), "000003.jpg");
}

#[test]
fn what_celebahq_needs() {
    let space = Space::new();
    copy(&celebahq(), &space.file(""));
    let error = |arguments: &[&str], words: &str| {
        let before = snapshot(&space.file(""));
        let error = space.run(&[&["prepare", "--dest=out"], arguments].concat()).error();
        assert!(error.contains(words), "{words:?} is not in {error:?}");
        assert_eq!(snapshot(&space.file("")), before);
    };
    let recipe = ["--recipe=celebahq", "--celeba=CelebA"];
    let with = |more: &[&'static str]| [&recipe[..], more].concat();
    error(&recipe, "needs --deltas DIR");
    error(&["--recipe=celebahq", "--source=in"], "needs --celeba DIR");
    error(&["--celeba=CelebA"], "--celeba is for --recipe celebahq");
    error(&["--recipe=celebahq", "--celeba=nowhere"], "nowhere: no such folder");
    error(&["--recipe=celebahq", "--celeba=in", "--no-deltas"], "in: has no img_celeba");
    error(&with(&["--source=in"]), "cannot be used with");
    error(&with(&["--no-deltas", "--resolution=64"]), "cannot be used with");
    error(&with(&["--deltas=nowhere"]), "nowhere/image_list.txt");
    error(&with(&["--deltas=in"]), "in/image_list.txt");

    let archive = fs::read(space.file("deltas/deltas00000.zip")).unwrap();
    space.write("deltas/deltas00000.zip", &archive[..archive.len() / 2]);
    error(&with(&["--deltas=deltas"]), "deltas00000.zip: deltas: not a readable zip archive");
    fs::remove_file(space.file("deltas/deltas00000.zip")).unwrap();
    error(&with(&["--deltas=deltas"]), "deltas: no delta*.zip with deltas here");
    space.write("deltas/image_list.txt", b"idx\n");
    error(&with(&["--deltas=deltas"]), "image_list.txt: deltas: line 1: there is no column");
    let table = space.file("CelebA/Anno/list_landmarks_celeba.txt");
    let text = fs::read_to_string(&table).unwrap();
    let cut = text.rsplit_once("000003").unwrap().0;
    space.write("CelebA/Anno/list_landmarks_celeba.txt", cut.as_bytes());
    error(
        &with(&["--no-deltas"]),
        "list_landmarks_celeba.txt: landmarks: it says 3 rows, and has 2",
    );
    fs::remove_file(&table).unwrap();
    error(&with(&["--no-deltas"]), "CelebA: has no Anno/list_landmarks_celeba.txt");
}

/// A face: skin, two eyes, a mouth, turned by an angle; and its row of landmarks.
fn face(name: &str, middle: [f32; 2], eyes: f32, degrees: f32) -> (RgbImage, String) {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let points = [[-0.5, 0.0], [0.5, 0.0], [0.0, 0.6], [-0.4, 1.1], [0.4, 1.1]].map(|[x, y]| {
        [middle[0] + eyes * (cos * x - sin * y), middle[1] + eyes * (sin * x + cos * y)]
    });
    let image = RgbImage::from_fn(240, 200, |x, y| {
        let (dx, dy) = ((x as f32 - middle[0]) / eyes, (y as f32 - middle[1]) / eyes);
        let (u, v) = (cos * dx + sin * dy, cos * dy - sin * dx);
        let near = |a: f32, b: f32, r: f32| (u - a).hypot(v - b) < r;
        if near(-0.5, 0.0, 0.15) || near(0.5, 0.0, 0.15) {
            Rgb([20, 20, 120])
        } else if (v - 1.1).abs() < 0.08 && u.abs() < 0.4 {
            Rgb([180, 30, 40])
        } else if near(0.0, 0.6, 0.1) {
            Rgb([200, 150, 120])
        } else if u.hypot((v - 0.4) / 1.3) < 1.2 {
            Rgb([230, 190, 160])
        } else {
            Rgb([90, (x / 2) as u8, (y / 2) as u8])
        }
    });
    let numbers: Vec<String> = points.iter().flatten().map(ToString::to_string).collect();
    (image, format!("{name},{}\n", numbers.join(",")))
}

fn faces() -> Space {
    let space = Space::new();
    let mut table = String::from("image,lx,ly,rx,ry,nx,ny,mlx,mly,mrx,mry\n");
    for (name, middle, eyes, degrees) in [
        ("a/upright.png", [120., 80.], 40., 0.),
        ("a/turned.png", [120., 90.], 44., 40.),
        ("b.png", [60., 110.], 50., -100.),
        ("small.png", [200., 40.], 16., 15.),
    ] {
        let (image, row) = face(name.rsplit('/').next().unwrap(), middle, eyes, degrees);
        fs::create_dir_all(space.file("in/a")).unwrap();
        image.save(space.file(&format!("in/{name}"))).unwrap();
        table += &row;
    }
    space.write("points.csv", table.as_bytes());
    space
}

#[test]
fn any_faces_are_aligned() {
    let space = faces();
    face("", [120., 80.], 40., 0.).0.save(space.file("in/unknown.png")).unwrap();
    let align = ["--align", "points.csv", "--resolution", "64"];
    let run = space.prepare(&[&align[..], &["--upscale", "--threads", "1"]].concat());
    assert!(run.stderr.contains("unknown.png: it has no landmarks"), "{}", run.stderr);
    let said = run.ok();
    assert!(said.contains("4 images") && said.contains("1 bad files skipped"), "{said}");
    let store = Store::open(space.file("out")).unwrap();
    // Eyes in a row at two heights of the square, 16 pixels apart; the mouth below; skin beside them.
    for index in 0..4 {
        let pixels = store.image(6, index).unwrap();
        let at = |x: usize, y: usize| [0, 1, 2].map(|c| pixels[(c * 64 + y) * 64 + x]);
        let is = |[r, g, b]: [u8; 3], like: [u8; 3]| {
            r.abs_diff(like[0]) < 30 && g.abs_diff(like[1]) < 30 && b.abs_diff(like[2]) < 30
        };
        for (x, y, like) in [
            (24, 30, [20, 20, 120]),
            (40, 30, [20, 20, 120]),
            (32, 47, [180, 30, 40]),
            (32, 30, [230, 190, 160]),
            (32, 23, [230, 190, 160]),
        ] {
            assert!(is(at(x, y), like), "image {index}: {:?} at {x}, {y}", at(x, y));
        }
    }
    // Neither threads nor parts change a byte.
    let more = ["--upscale", "--threads", "3", "--dest", "again"];
    space.run(&[&["prepare", "--source", "in"], &align[..], &more[..]].concat()).ok();
    let of = |dir: &str| snapshot(&space.file(dir)).into_values().collect::<Vec<_>>();
    assert!(of("out") == of("again"));
}

/// The resolution is what most faces have, not what their pictures have.
#[test]
fn resolutions_of_faces() {
    let space = faces();
    space.prepare(&["--align", "points.csv"]).ok();
    // The least face has 16 pixels between its eyes, and so 64 a side.
    assert_eq!(Store::open(space.file("out")).unwrap().max_level(), 6);
    let prepare = |more: &[&str]| {
        space.run(&[&["prepare", "--source=in", "--dest=x", "--align=points.csv"], more].concat())
    };
    let error = prepare(&["--resolution=128"]).error();
    assert!(error.contains("1 of 4 images are smaller; pass --resolution 64"), "{error}");
    for (more, words) in [
        (["--resolution=2048"], "aligned faces have at most 1024 pixels a side"),
        (["--channels=4"], "aligned faces are RGB or grey; pass --channels 3 or 1"),
        (["--crop=1,2,3"], "cannot be used with"),
        (["--transform=pad"], "cannot be used with"),
    ] {
        let error = prepare(&more).error();
        assert!(error.contains(words), "{error}");
    }
    prepare(&["--channels=1", "--resolution=32"]).ok();
    assert_eq!(Store::open(space.file("x")).unwrap().channels(), 1);
}

#[test]
fn tables_that_are_none() {
    let space = faces();
    let row = face("b.png", [60., 110.], 50., -100.).1;
    for (table, words) in [
        ("", "points.csv: landmarks: it has no landmarks"),
        (&row.replace("b.png", "c.png"), "it has none of the images of in (such as a/turned.png)"),
        (&row.replace(',', ",,"), "line 1: not a name and 10 numbers"),
        ("\u{0}\u{1}\n", "it has no landmarks"),
    ] {
        space.write("points.csv", table.as_bytes());
        let error = space.prepare(&["--align=points.csv"]).error();
        assert!(error.contains(words), "{words}: {error}");
    }
    space.write("points.csv", b"\xff\xfe\x00");
    assert!(space.prepare(&["--align=points.csv"]).error().contains("not a text file"));
    assert!(space.prepare(&["--align=in"]).error().contains("in"));
    assert!(space.prepare(&["--align=nowhere"]).error().contains("cannot read nowhere"));

    // Two images that a row could be of, and rows that are of no face.
    fs::create_dir(space.file("in/z")).unwrap();
    fs::copy(space.file("in/b.png"), space.file("in/z/b.png")).unwrap();
    fs::rename(space.file("in/b.png"), space.file("in/a/b.png")).unwrap();
    space.write("points.csv", row.as_bytes());
    let error = space.prepare(&["--align=points.csv"]).error();
    assert!(error.contains("b.png may be a/b.png or z/b.png"), "{error}");
    let nowhere = "nan,nan,nan,nan,nan,nan,nan,nan,nan,nan";
    let table = format!("{row}upright.png,{nowhere}\nturned.png,1,1,1,1,1,1,1,1,1,1\n");
    space.write("points.csv", table.as_bytes());
    fs::remove_file(space.file("in/z/b.png")).unwrap();
    let run = space.prepare(&["--align=points.csv"]);
    for words in [
        "a/upright.png: its landmarks are not positions in an image",
        "a/turned.png: its face has fewer than 8 pixels a side",
        "small.png: it has no landmarks",
    ] {
        assert!(run.stderr.contains(words), "{words}: {}", run.stderr);
    }
    assert!(run.error().contains("1 good images among 4"));
}
