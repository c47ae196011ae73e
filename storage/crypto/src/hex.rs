//! Lower-case hexadecimal, for ids and for the data key file.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Two lower-case digits a byte.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Exactly `N` bytes from exactly `2 * N` digits of either case; `None` for anything else.
pub(crate) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = [nibble(pair[0])?, nibble(pair[1])?];
        *byte = high << 4 | low;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn every_byte_round_trips_and_nothing_else_decodes() {
        for byte in 0..=u8::MAX {
            assert_eq!(decode::<1>(&encode(&[byte])), Some([byte]));
            assert_eq!(decode::<1>(&encode(&[byte]).to_uppercase()), Some([byte]));
        }
        for bad in ["", "0", "000", "0g", "+1", " 1", "é"] {
            assert_eq!(decode::<1>(bad), None, "{bad:?}");
        }
    }
}
