//! Hostile and broken pickles; the files of real torch are read in the integration tests.

use std::io::Write;

use proptest::prelude::*;
use zip::write::SimpleFileOptions;

use super::machine;
use super::node::{Arena, Node};
use super::*;

fn run(bytes: &[u8]) -> Result<(Arena, Id)> {
    let mut arena = Arena::default();
    machine::run(bytes, &mut arena).map(|(root, _)| (arena, root))
}

/// A file as torch writes it, with the given pickle and storages.
fn file(folder: &Path, pickle: &[u8], storages: &[(&str, &[u8])]) -> PathBuf {
    let path = folder.join("file.pt");
    let mut zip = zip::ZipWriter::new(File::create(&path).unwrap());
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("archive/data.pkl", options).unwrap();
    zip.write_all(pickle).unwrap();
    for (key, bytes) in storages {
        zip.start_file(format!("archive/data/{key}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
    path
}

/// `{"x": _rebuild_tensor_v2(storage 0 of `claimed` floats, offset, shape, strides, …)}` in protocol 2.
fn tensor_pickle(claimed: i32, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let int = |n: i32| [&b"J"[..], &n.to_le_bytes()].concat();
    let text = |s: &str| [&b"X"[..], &(s.len() as u32).to_le_bytes(), s.as_bytes()].concat();
    let tuple =
        |items: &[i32]| [&b"("[..], &items.iter().flat_map(|n| int(*n)).collect::<Vec<u8>>(), b"t"].concat();
    [
        &b"\x80\x02}"[..],
        &text("x"),
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        &text("storage"),
        b"ctorch\nFloatStorage\n",
        &text("0"),
        &text("cpu"),
        &int(claimed),
        b"tQ",
        &int(offset),
        &tuple(shape),
        &tuple(strides),
        b"\x89}tRs.",
    ]
    .concat()
}

fn read(pickle: &[u8], storage: &[u8]) -> Result<Tensor> {
    let folder = tempfile::tempdir().unwrap();
    let file = TorchFile::open(&file(folder.path(), pickle, &[("0", storage)]))?;
    let info = file.root().get("x").unwrap().tensor().unwrap().clone();
    file.tensor(&info)
}

fn floats(count: u8) -> Vec<u8> {
    (0..count).flat_map(|i| f32::from(i).to_le_bytes()).collect()
}

#[test]
fn a_tensor_is_read_through_its_strides() {
    let tensor = read(&tensor_pickle(8, 1, &[2, 3], &[1, 2]), &floats(8)).unwrap();
    assert_eq!(tensor.to_vec2::<f32>().unwrap(), [[1., 3., 5.], [2., 4., 6.]]);
    assert_eq!(read(&tensor_pickle(8, 0, &[0, 3], &[3, 1]), &floats(8)).unwrap().dims(), [0, 3]);
}

#[test]
fn a_tensor_beyond_its_storage_is_refused_before_anything_is_allocated() {
    for (claimed, offset, shape, strides) in [
        (8, 4, &[2, 3][..], &[3, 1][..]),
        (8, 0, &[4096, 67_000_000], &[0, 0]),
        (8, 0, &[4096, 67_000_000], &[67_000_000, 1]),
        (i32::MAX, 0, &[2], &[1]),
        (8, 0, &[2, 3], &[1]),
    ] {
        let error = read(&tensor_pickle(claimed, offset, shape, strides), &floats(8)).unwrap_err();
        assert_eq!(error.kind, crate::ErrorKind::Incompatible, "{error}");
    }
    assert!(run(&tensor_pickle(8, 0, &[-1], &[1])).is_err());
    assert!(run(&tensor_pickle(8, 0, &[1; 17], &[1; 17])).is_err());
}

#[test]
fn functions_are_named_and_never_run() {
    let (arena, root) = run(b"cposix\nsystem\n(S'touch /tmp/hacked'\ntR.").unwrap();
    assert!(matches!(arena.get(root), Node::Opaque { class, state: None } if class == "posix.system"));
    assert_eq!(Item::new(&arena, root).kind(), "object of posix.system");
}

#[test]
fn members_of_parameter_dicts_and_ordered_dicts_are_found() {
    // An object of torch.nn.ParameterDict whose state holds `_parameters` = OrderedDict([["*", 7]]).
    let pickle = b"ctorch.nn.modules.container\nParameterDict\n)\x81}S'_parameters'\nccollections\nOrderedDict\n(]]S'*'\naI7\naatRsb.";
    let (arena, root) = run(pickle).unwrap();
    assert_eq!(Item::new(&arena, root).get("*").and_then(Item::int), Some(7));
}

#[test]
fn a_dict_that_holds_itself_is_only_looked_at_where_asked() {
    let (arena, root) = run(b"}q\x00X\x01\x00\x00\x00xh\x00s.").unwrap();
    let inner = Item::new(&arena, root).get("x").unwrap().get("x").unwrap();
    assert_eq!(inner.kind(), "dict");
}

#[test]
fn remembered_objects_cannot_be_copied_without_end() {
    // A list of 200 pairs, then OrderedDict(list) again and again.
    let mut pickle = b"(".to_vec();
    for _ in 0..200 {
        pickle.extend_from_slice(b"]NaNa");
    }
    pickle.extend_from_slice(b"lq\x00ccollections\nOrderedDict\nq\x010");
    for _ in 0..1000 {
        pickle.extend_from_slice(b"h\x01h\x00\x85R0");
    }
    pickle.extend_from_slice(b"N.");
    assert!(run(&pickle).unwrap_err().message.contains("copies too much"));
    // Doubling a tuple of itself costs nothing, for objects are shared.
    let mut laughs = b"Nq\x00".to_vec();
    for _ in 0..10_000 {
        laughs.extend_from_slice(b"h\x00h\x00\x86q\x000");
    }
    laughs.push(b'.');
    assert!(run(&laughs).is_ok());
}

#[test]
fn what_torch_did_not_write_is_said() {
    let folder = tempfile::tempdir().unwrap();
    for (bytes, wanted) in [
        (&b"\x80\x02N."[..], "too short"),
        (b"\x80\x02]q\x00(K\x01K\x02K\x03K\x04e.......", "not one of torch.save"),
        (b"PK\x03\x04 and then nothing", "not a whole zip"),
    ] {
        let path = folder.path().join("file.ckpt");
        std::fs::write(&path, bytes).unwrap();
        let error = TorchFile::open(&path).err().unwrap();
        assert!(error.message.contains(wanted) && error.message.contains("file.ckpt"), "{error}");
    }
    let whole = file(folder.path(), &tensor_pickle(8, 0, &[8], &[1]), &[("0", &floats(8))]);
    let bytes = std::fs::read(&whole).unwrap();
    for cut in [bytes.len() / 4, bytes.len() / 2, bytes.len() - 10] {
        std::fs::write(&whole, &bytes[..cut]).unwrap();
        assert!(TorchFile::open(&whole).is_err(), "cut to {cut} of {}", bytes.len());
    }
}

const OPERATIONS: &[&[u8]] = &[
    b"(",
    b"0",
    b"1",
    b"2",
    b"N",
    b"K\x01",
    b"]",
    b"}",
    b")",
    b"t",
    b"l",
    b"d",
    b"a",
    b"e",
    b"s",
    b"u",
    b"q\x00",
    b"h\x00",
    b"R",
    b"b",
    b"Q",
    b"o",
    b"\x81",
    b"\x85",
    b"\x87",
    b"\x94",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ccollections\nOrderedDict\n",
];

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = run(&bytes);
    }

    #[test]
    fn no_mixture_of_operations_makes_it_panic(
        ops in proptest::collection::vec(proptest::sample::select(OPERATIONS), 0..60)
    ) {
        let mut bytes = ops.concat();
        bytes.push(b'.');
        let _ = run(&bytes);
    }
}
