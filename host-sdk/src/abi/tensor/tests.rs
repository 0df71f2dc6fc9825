use std::sync::Arc;

use super::*;

fn parts(data: &[f32], shape: &[i64], strides: Option<&[i64]>) -> TensorParts {
    TensorParts {
        data: data.as_ptr().cast(),
        len: size_of_val(data),
        device: Device::CPU,
        dtype: DType::F32,
        shape: shape.to_vec(),
        strides: strides.map(<[i64]>::to_vec),
        byte_offset: 0,
    }
}

fn make(parts: TensorParts) -> Result<TensorBuf, NodeError> {
    // SAFETY: the tests' data outlives their tensors.
    unsafe { TensorBuf::from_parts(parts, ()) }
}

#[test]
fn a_vector_is_shared_and_not_copied() {
    let values = vec![1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    let at = values.as_ptr();
    let tensor = TensorBuf::from_vec_f32(&[2, 3], values).unwrap();
    assert_eq!(tensor.as_f32_slice().unwrap().as_ptr(), at);
    assert_eq!(tensor.clone().as_f32_slice().unwrap().as_ptr(), at);
    assert_eq!((tensor.shape(), tensor.strides()), (&[2, 3][..], &[3, 1][..]));
}

#[test]
fn the_memory_is_released_with_the_last_clone() {
    let owner = Arc::new(());
    let data = [1.0_f32];
    // SAFETY: `data` outlives the tensors.
    let tensor = unsafe { TensorBuf::from_parts(parts(&data, &[1], None), owner.clone()) }.unwrap();
    let second = tensor.clone();
    drop(tensor);
    assert_eq!(Arc::strong_count(&owner), 2);
    drop(second);
    assert_eq!(Arc::strong_count(&owner), 1);
}

#[test]
fn strided_data_is_read_in_order() {
    let data = [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    let transposed = make(parts(&data, &[3, 2], Some(&[1, 3]))).unwrap();
    assert!(transposed.as_f32_slice().is_none());
    assert_eq!(transposed.to_vec_f32().unwrap(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    let repeated = make(parts(&data, &[2, 2], Some(&[0, 1]))).unwrap();
    assert_eq!(repeated.to_vec_f32().unwrap(), [1.0, 2.0, 1.0, 2.0]);
    let mut backwards = parts(&data, &[3], Some(&[-1]));
    backwards.byte_offset = 8;
    assert_eq!(make(backwards).unwrap().to_vec_f32().unwrap(), [3.0, 2.0, 1.0]);
}

#[test]
fn other_types_become_f32() {
    let check = |dtype, bytes: Vec<u8>, expected: &[f32]| {
        let tensor = TensorBuf::from_bytes(&[expected.len()], dtype, bytes).unwrap();
        assert_eq!(tensor.to_vec_f32().unwrap(), expected, "{dtype}");
    };
    let half = |bits: &[u16]| bits.iter().flat_map(|bits| bits.to_ne_bytes()).collect::<Vec<u8>>();
    check(
        DType::F16,
        half(&[0x3c00, 0xc000, 0x0001, 0x7bff, 0x7c00]),
        &[1.0, -2.0, 5.960_464_5e-8, 65504.0, f32::INFINITY],
    );
    check(DType::BF16, half(&[0x3f80, 0xc040]), &[1.0, -3.0]);
    check(DType::U8, vec![0, 255], &[0.0, 255.0]);
    check(DType::BOOL, vec![0, 7], &[0.0, 1.0]);
    check(DType::I64, (-5_i64).to_ne_bytes().to_vec(), &[-5.0]);
    check(DType::F64, 0.5_f64.to_ne_bytes().to_vec(), &[0.5]);
}

#[test]
fn empty_and_scalar_tensors_are_well_formed() {
    assert_eq!(TensorBuf::from_vec_f32(&[0, 4], vec![]).unwrap().as_f32_slice(), Some(&[][..]));
    let scalar = TensorBuf::from_vec_f32(&[], vec![7.0]).unwrap();
    assert_eq!(scalar.to_vec_f32().unwrap(), [7.0]);
}

#[test]
fn ill_formed_tensors_cannot_be_made() {
    let data = [0.0_f32; 6];
    let refused = |what: TensorParts, why: &str| {
        let error = make(what).unwrap_err();
        assert!(error.message.contains(why), "{error} does not say {why:?}");
    };
    refused(parts(&data, &[2, -3], None), "negative");
    refused(parts(&data, &[2, 3], Some(&[1])), "2 sizes but 1 strides");
    refused(parts(&data, &[2, 4], None), "bytes 0..32 of 24");
    refused(parts(&data, &[2, 3], Some(&[-3, 1])), "bytes -12");
    refused(parts(&data, &[i64::MAX, 8], None), "larger than memory");
    refused(parts(&data, &[2], Some(&[i64::MAX])), "of 24");
    let mut unknown = parts(&data, &[2], None);
    unknown.dtype = DType { code: 5, bits: 64, lanes: 1 };
    refused(unknown, "not supported");
    let mut lanes = parts(&data, &[2], None);
    lanes.dtype.lanes = 4;
    refused(lanes, "4 lanes");
    let mut null = parts(&data, &[2], None);
    null.data = std::ptr::null();
    refused(null, "null");
    let mut far = parts(&data, &[6], None);
    far.byte_offset = 4;
    refused(far, "bytes 4..28 of 24");
    assert!(TensorBuf::from_vec_f32(&[2, 2], vec![0.0]).unwrap_err().message.contains("4 elements"));
}

#[test]
fn a_tensor_elsewhere_is_not_read() {
    let mut elsewhere = parts(&[], &[2], None);
    elsewhere.data = std::ptr::without_provenance(64);
    elsewhere.device = Device { device_type: 2, device_id: 0 };
    let tensor = make(elsewhere).unwrap();
    assert!(tensor.as_f32_slice().is_none());
    assert!(tensor.to_vec_f32().is_err());
}
