//! What strangers, customers gone wild and stalled peers can take from others: nothing. Each test is an attack in a small form,
//! which counts; `make chaos-load` runs them at full size, and measures.

mod members;
mod sizes;
mod strangers;
mod uploads;

/// A query whose values are escaped.
fn query(parameters: &[(&str, &str)]) -> String {
    let escape = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let pairs: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
    format!("?{}", pairs.join("&"))
}
