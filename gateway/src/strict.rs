//! JSON text → tree, refusing what serde_json lets pass: keys that are given twice, and deep nesting.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Deeper than any request of ours, shallower than what a protobuf decoder accepts.
const MAX_DEPTH: usize = 64;

/// Parses a whole text; the error tells line and column, and shows no values.
pub(crate) fn parse(text: &[u8]) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Tree(MAX_DEPTH).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// A value with so many levels left below it.
#[derive(Clone, Copy)]
struct Tree(usize);

impl Tree {
    fn below<E: Error>(self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom("it is nested too deeply"))
    }
}

impl<'de> DeserializeSeed<'de> for Tree {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is too large"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(below)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} is given twice")));
            }
            map.insert(key, entries.next_value_seed(below)?);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::parse;

    #[test]
    fn parses_what_serde_json_does() {
        let text = br#"{"a": [1, -2, 2.5, true, null, "x\u00e9"], "b": {"c": 18446744073709551615}}"#;
        assert_eq!(parse(text).expect("valid"), json!({"a": [1, -2, 2.5, true, null, "xé"], "b": {"c": u64::MAX}}));
    }

    #[test]
    fn refuses_with_a_position() {
        for (text, expected) in [
            (&b"{\"a\": 1,\n \"a\": 2}"[..], "\"a\" is given twice at line 2"),
            (b"{} {}", "trailing characters at line 1 column 4"),
            (b"{\"a\": ", "EOF while parsing"),
            (b"\"\xff\"", "invalid unicode"),
            (b"{\"a\": 1e400}", "out of range"),
        ] {
            let error = parse(text).expect_err("refused").to_string();
            assert!(error.contains(expected), "{error}");
        }
        let deep = [vec![b'['; 65], vec![b']'; 65]].concat();
        assert!(parse(&deep).expect_err("refused").to_string().contains("too deeply"));
        assert!(parse(&[vec![b'['; 64], vec![b']'; 64]].concat()).is_ok());
        assert!(parse(&vec![b'['; 1 << 20]).is_err());
    }
}
