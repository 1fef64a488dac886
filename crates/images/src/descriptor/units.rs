//! How much a number of a descriptor is.

/// Names that old programs write instead of a formula; with an "s" as well.
const NAMES: &[(&str, u64)] = &[
    ("byte", 1),
    ("b", 1),
    ("kilobyte", 1 << 10),
    ("kb", 1 << 10),
    ("megabyte", 1 << 20),
    ("mb", 1 << 20),
    ("gigabyte", 1 << 30),
    ("gb", 1 << 30),
    ("terabyte", 1 << 40),
    ("tb", 1 << 40),
];

/// The bytes of a unit, such as "byte * 2^30" (DSP0004) or "MegaBytes".
pub(super) fn bytes_of(unit: &str) -> Option<u64> {
    let unit: String = unit.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_ascii_lowercase();
    let named = unit.strip_suffix('s').unwrap_or(&unit);
    if let Some((_, bytes)) = NAMES.iter().find(|(name, _)| *name == named) {
        return Some(*bytes);
    }
    let mut factors = unit.split('*');
    factors.next().filter(|name| matches!(*name, "byte" | "bytes"))?;
    factors.try_fold(1, |product: u64, factor| {
        let (base, power) = factor.split_once('^').unwrap_or((factor, "1"));
        let (base, power) = (base.parse::<u64>().ok()?, power.parse::<u32>().ok()?);
        product.checked_mul(base.checked_pow(power)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_all_programs_are_known() {
        let units = [
            ("byte * 2^30", 1 << 30),
            ("byte * 2^20", 1 << 20),
            ("byte", 1),
            ("Bytes", 1),
            ("byte*1024", 1024),
            ("byte * 2 ^ 10 * 3", 3072),
            ("byte * 10^9", 1_000_000_000),
            ("MegaBytes", 1 << 20),
            ("GigaBytes", 1 << 30),
            ("GB", 1 << 30),
        ];
        for (unit, bytes) in units {
            assert_eq!(bytes_of(unit), Some(bytes), "{unit}");
        }
        for unit in ["", "bit", "byte * 2^64", "byte * x", "hertz * 10^6", "byte * 2^-1", "percent"] {
            assert_eq!(bytes_of(unit), None, "{unit}");
        }
    }
}
