//! From a tensor's place in its storage to its numbers.

use candle_core::{Device, Tensor};
use half::{bf16, f16};

use super::node::{Element, TensorInfo};
use crate::{Error, Result};

/// The tensor `info` in the bytes of its storage. Everything is checked before anything is allocated.
pub(super) fn read(info: &TensorInfo, storage: &[u8], big_endian: bool) -> Result<Tensor> {
    let element = info.storage.element;
    let count = info.storage.count;
    if count.checked_mul(element.size()).is_none_or(|bytes| bytes > storage.len()) {
        return Err(Error::incompatible(format!(
            "storage {} holds {} bytes, but its pickle claims {count} numbers of {} bytes",
            info.storage.key,
            storage.len(),
            element.size()
        ))
        .help("the file is cut short or damaged: fetch it again"));
    }
    let wrong = || {
        Error::incompatible(format!(
            "a tensor of shape {:?} with strides {:?} from place {} on does not lie in its storage of {count} numbers",
            info.shape, info.strides, info.offset
        ))
    };
    if info.shape.len() != info.strides.len() {
        return Err(wrong());
    }
    let total = info.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or_else(wrong)?;
    if total > 0 {
        // A tensor larger than its storage would be one number shown many times: no checkpoint has it, and it would allocate without end.
        let steps = info.shape.iter().zip(&info.strides).map(|(d, s)| (d - 1).checked_mul(*s));
        let last =
            steps.into_iter().try_fold(info.offset, |sum, step| sum.checked_add(step?)).ok_or_else(wrong)?;
        if last >= count || total > count {
            return Err(wrong());
        }
    }
    let places = Places::new(info, total);
    let at = |place: usize| &storage[place * element.size()..];
    macro_rules! numbers {
        ($type:ty, $wide:ty) => {{
            const SIZE: usize = size_of::<$type>();
            let values = places.map(|place| {
                let mut bytes = [0u8; SIZE];
                bytes.copy_from_slice(&at(place)[..SIZE]);
                let value =
                    if big_endian { <$type>::from_be_bytes(bytes) } else { <$type>::from_le_bytes(bytes) };
                <$wide>::from(value)
            });
            Tensor::from_vec(values.collect::<Vec<$wide>>(), info.shape.as_slice(), &Device::Cpu)?
        }};
    }
    Ok(match element {
        Element::F32 => numbers!(f32, f32),
        Element::F64 => numbers!(f64, f64),
        Element::F16 => numbers!(f16, f16),
        Element::Bf16 => numbers!(bf16, bf16),
        Element::I64 => numbers!(i64, i64),
        Element::I32 => numbers!(i32, i64),
        Element::I16 => numbers!(i16, i64),
        Element::I8 => numbers!(i8, i64),
        Element::U8 | Element::Bool => numbers!(u8, u8),
    })
}

/// The places of a tensor's numbers in its storage, in the order of a contiguous tensor.
struct Places<'a> {
    info: &'a TensorInfo,
    index: Vec<usize>,
    place: usize,
    left: usize,
}

impl<'a> Places<'a> {
    fn new(info: &'a TensorInfo, total: usize) -> Self {
        Self { info, index: vec![0; info.shape.len()], place: info.offset, left: total }
    }
}

impl Iterator for Places<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let place = self.place;
        for dim in (0..self.index.len()).rev() {
            self.index[dim] += 1;
            // A dimension of size 1 may have any stride, which is taken back at once.
            self.place = self.place.wrapping_add(self.info.strides[dim]);
            if self.index[dim] < self.info.shape[dim] {
                break;
            }
            self.place = self.place.wrapping_sub(self.index[dim].wrapping_mul(self.info.strides[dim]));
            self.index[dim] = 0;
        }
        Some(place)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}
