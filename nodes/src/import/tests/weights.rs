//! The host's tensors: their types, strides and faults, and a host that listens or wants to stop.

use candle_core::DType;
use vocable_host_sdk::abi::{DType as HostDType, Device as HostDevice, ErrorKind, TensorParts};

use super::*;
use crate::testing::ListeningHost;

/// The transpose of `values [rows, columns]`, without moving them.
pub(super) fn transposed(shape: &[usize; 2], values: Vec<f32>) -> TensorBuf {
    let [rows, columns] = shape.map(|size| size as i64);
    let parts = TensorParts {
        data: values.as_ptr().cast(),
        len: 4 * values.len(),
        device: HostDevice::CPU,
        dtype: HostDType::F32,
        shape: vec![columns, rows],
        strides: Some(vec![1, columns]),
        byte_offset: 0,
    };
    // SAFETY: the vector becomes the owner, its buffer does not move, and nobody else can write to it.
    unsafe { TensorBuf::from_parts(parts, values) }.unwrap()
}

/// The autoencoder of a tiny Stable Diffusion 1, in its host's names.
fn tensors() -> Tensors {
    let file = file_of("sd1").into_iter();
    file.filter_map(|(name, tensor)| Some((name.strip_prefix("first_stage_model.")?.to_string(), tensor)))
        .collect()
}

fn handed(tensors: &Tensors, give: impl Fn(&Tensor) -> TensorBuf) -> StateDict {
    tensors.iter().map(|(name, tensor)| (name.clone(), give(tensor))).collect()
}

fn plain(tensor: &Tensor) -> TensorBuf {
    tensor_into(tensor).unwrap()
}

/// In its own type, of 16 or 64 bits.
fn raw(tensor: &Tensor) -> TensorBuf {
    let dtype = match tensor.dtype() {
        DType::F16 => HostDType::F16,
        DType::BF16 => HostDType::BF16,
        _ => HostDType::F64,
    };
    let mut bytes = Vec::new();
    tensor.write_bytes(&mut bytes).unwrap();
    TensorBuf::from_bytes(tensor.dims(), dtype, bytes).unwrap()
}

/// The network that is made of them.
fn network(tensors: StateDict, precision: &str) -> Result<Tensors, NodeError> {
    let home = Home::new();
    let value = hand_in(&home, StateKind::Vae, tensors, &settings([("precision", precision.into())]))?;
    let inputs = Inputs::new().with("vae", value);
    Ok(vae(&inputs).autoencoder.state_dict().clone())
}

fn assert_same(found: &Tensors, wanted: &Tensors) {
    assert!(found.keys().eq(wanted.keys()));
    for (name, found) in found {
        assert_eq!(found.dtype(), wanted[name].dtype());
        let numbers = |tensor: &Tensor| {
            tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(numbers(found), numbers(&wanted[name]), "{name}");
    }
}

#[test]
fn floats_of_all_types_and_strides_are_taken() {
    let tensors = tensors();
    let wanted = network(handed(&tensors, plain), "f32").unwrap();
    for dtype in [DType::F16, DType::BF16] {
        let halves: Tensors =
            tensors.iter().map(|(name, tensor)| (name.clone(), tensor.to_dtype(dtype).unwrap())).collect();
        let rounded = network(handed(&halves, plain), "f32").unwrap();
        assert_same(&network(handed(&halves, raw), "f32").unwrap(), &rounded);
        let kept = network(handed(&halves, raw), if dtype == DType::F16 { "f16" } else { "bf16" }).unwrap();
        assert!(kept.values().all(|tensor| tensor.dtype() == dtype));
    }
    let doubles = |tensor: &Tensor| raw(&tensor.to_dtype(DType::F64).unwrap());
    assert_same(&network(handed(&tensors, doubles), "f32").unwrap(), &wanted);

    let mut views = 0;
    let mut dict = handed(&tensors, plain);
    for (name, tensor) in &mut dict {
        // A convolution of one place may come as a matrix.
        if let [rows, columns, 1, 1] = tensors[name].dims() {
            let columns_first = tensors[name].reshape((*rows, *columns)).unwrap().t().unwrap();
            let values = columns_first.contiguous().unwrap().flatten_all().unwrap().to_vec1().unwrap();
            *tensor = transposed(&[*columns, *rows], values);
            views += 1;
        }
    }
    assert!(views > 10 && dict.iter().any(|(_, tensor)| !tensor.is_contiguous()));
    assert_same(&network(dict, "f32").unwrap(), &wanted);
}

#[test]
fn what_is_wrong_with_a_tensor_is_said_with_its_name() {
    const NAME: &str = "encoder.conv_in.bias";
    let tensors = tensors();
    let with = |change: &dyn Fn(&mut BTreeMap<String, TensorBuf>)| {
        let mut all: BTreeMap<String, TensorBuf> = handed(&tensors, plain).into_iter().collect();
        change(&mut all);
        network(all.into_iter().collect(), "f32").unwrap_err()
    };
    let put = |tensor: TensorBuf| with(&|all| drop(all.insert(NAME.to_string(), tensor.clone())));
    let error = with(&|all| drop(all.remove(NAME)));
    assert!(error.message.contains("tensor encoder.conv_in.bias is missing"), "{error}");
    let error = with(&|all| {
        all.insert("decoder.extra.weight".to_string(), all[NAME].clone());
    });
    assert!(error.message.contains("unknown kind: decoder.extra.weight"), "{error}");
    let error = put(TensorBuf::from_vec_f32(&[3], vec![0.0; 3]).unwrap());
    assert!(error.message.contains(NAME) && error.message.contains("[3]"), "{error}");
    let error = put(TensorBuf::from_vec(&[32], vec![0i64; 32]).unwrap());
    assert!(
        error.message.contains(NAME) && error.message.contains("i64, wanted f32, f16, bf16 or f64"),
        "{error}"
    );
    assert!(error.message.starts_with("a model of the host: "), "{error}");
    let error = put(TensorBuf::from_vec_f32(&[32], vec![f32::NAN; 32]).unwrap());
    assert!(error.message.contains(NAME) && error.message.contains("not finite"), "{error}");
    let mut twice = handed(&tensors, plain);
    twice.push(twice[0].clone());
    let error = network(twice, "f32").unwrap_err();
    assert!(error.message.contains("there twice"), "{error}");
}

#[test]
fn the_host_hears_how_far_it_is_and_may_stop_it() {
    let dict = || handed(&tensors(), plain);
    let home = Home::new();
    let import = |host: &ListeningHost<'_>| {
        crate::Vocable.import_state_dict(StateKind::Vae, dict(), settings([]), &HostContext::new(host))
    };
    let listening = ListeningHost::new(&home.host);
    import(&listening).unwrap();
    let count = dict().len();
    assert_eq!(listening.heard("taking the VAE of a model of the host").len(), 1);
    assert_eq!(listening.heard("progress").last(), Some(&format!("progress {count} of {count}")));

    let listening = ListeningHost::stopping_at(&home.host, "taking");
    assert_eq!(import(&listening).unwrap_err().kind, ErrorKind::Cancelled);
}
