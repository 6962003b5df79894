//! The classes of an image that shows several: a `.npy` member with a number for each class, as CLIP_benchmark's multi-label
//! sets have.

use crate::data::Defect;

/// Longest member that is read.
pub(super) const LONGEST: u64 = 1 << 20;
const MAGIC: &[u8] = b"\x93NUMPY";

/// Places of the numbers that are not 0 in a NumPy array of one dimension.
///
/// # Errors
/// The bytes are no such array: `label_npy`.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<u32>, Defect> {
    let defect = |detail: &str| Defect::new("label_npy", format!("its .npy member {detail}"));
    let (header, values) = split(bytes).ok_or_else(|| defect("is no NumPy array"))?;
    let kind = quoted(header, "descr").ok_or_else(|| defect("has no `descr`"))?;
    let shape = header.split("'shape':").nth(1).and_then(|rest| rest.split_once('(')?.1.split_once(')'));
    let shape = shape.ok_or_else(|| defect("has no shape"))?.0;
    let sides: Option<Vec<usize>> = shape
        .split(',')
        .map(str::trim)
        .filter(|side| !side.is_empty())
        .map(|side| side.parse().ok())
        .collect();
    let sides = sides.ok_or_else(|| defect("has no shape"))?;
    // [classes], or [1, classes].
    let classes = match sides.as_slice() {
        [classes] | [1, classes] => *classes,
        _ => return Err(defect(&format!("has the shape ({shape}); expected one number a class"))),
    };
    let (width, is_set): (usize, fn(&[u8]) -> bool) = match kind.trim_start_matches(['<', '|', '=']) {
        "b1" | "u1" | "i1" => (1, any),
        "i2" | "u2" => (2, any),
        "i4" | "u4" => (4, any),
        "i8" | "u8" => (8, any),
        // Of minus zero one bit is set.
        "f4" => (4, |bytes| bytes[..3].iter().any(|byte| *byte != 0) || bytes[3] & 0x7f != 0),
        "f8" => (8, |bytes| bytes[..7].iter().any(|byte| *byte != 0) || bytes[7] & 0x7f != 0),
        _ => return Err(defect(&format!("holds {kind}; expected integers, floats or booleans"))),
    };
    if classes.checked_mul(width) != Some(values.len()) {
        return Err(defect(&format!("has {} bytes for {classes} numbers of {width}", values.len())));
    }
    let set = values.chunks_exact(width).enumerate().filter(|(_, value)| is_set(value));
    Ok(set.map(|(class, _)| class as u32).collect())
}

fn any(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| *byte != 0)
}

/// Header and values of an array.
fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (major, rest) = (rest.first()?, rest.get(2..)?);
    let (length, rest) = match major {
        1 => (u16::from_le_bytes(rest.get(..2)?.try_into().ok()?) as usize, rest.get(2..)?),
        2 | 3 => (u32::from_le_bytes(rest.get(..4)?.try_into().ok()?) as usize, rest.get(4..)?),
        _ => return None,
    };
    Some((std::str::from_utf8(rest.get(..length)?).ok()?, rest.get(length..)?))
}

/// The text of an entry of the header, which is a Python dict.
fn quoted<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    header.split(&format!("'{name}':")).nth(1)?.split('\'').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(kind: &str, shape: &str, values: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let length = (header.len() as u16).to_le_bytes();
        [MAGIC, b"\x01\x00", &length, header.as_bytes(), values].concat()
    }

    #[test]
    fn classes_are_the_places_that_are_not_zero() {
        assert_eq!(read(&array("|u1", "(4,)", &[0, 1, 0, 1])), Ok(vec![1, 3]));
        assert_eq!(read(&array("|b1", "(1, 3)", &[1, 0, 0])), Ok(vec![0]));
        let wide: Vec<u8> = [0i64, 0, 1].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(read(&array("<i8", "(3,)", &wide)), Ok(vec![2]));
        let floats: Vec<u8> = [-0.0f32, 1.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(read(&array("<f4", "(2,)", &floats)), Ok(vec![1]));
        assert_eq!(read(&array("|u1", "(2,)", &[0, 0])), Ok(vec![]));
    }

    #[test]
    fn what_is_no_such_array_is_named() {
        let told = |bytes: &[u8]| read(bytes).unwrap_err().detail;
        assert!(told(b"1").contains("no NumPy array"));
        assert!(told(&array("|O", "(2,)", &[0, 0])).contains("|O"));
        assert!(told(&array("|u1", "(2, 2)", &[0; 4])).contains("(2, 2)"));
        assert!(told(&array("|u1", "(9,)", &[0; 4])).contains("4 bytes for 9 numbers"));
        assert!(told(&array("<i8", "(99999999999999999999,)", &[])).contains("no shape"));
        assert!(told(&array("<i8", "(9223372036854775807,)", &[0])).contains("1 bytes for"));
        assert!(read(&array("|u1", "(2,)", &[0, 0])[..20]).is_err());
    }
}
