//! XML as vim25 speaks it: a writer that keeps the order in which it is told, and an owned tree to read from.
//!
//! Readers look at local names only and pass over what they do not know: servers differ in prefixes and add elements
//! from version to version.

use std::fmt::Display;
use std::str::FromStr;

const XSI: &str = "http://www.w3.org/2001/XMLSchema-instance";
const XSD: &str = "http://www.w3.org/2001/XMLSchema";

/// A reference to a managed object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ManagedRef {
    pub(super) kind: String,
    pub(super) id: String,
}

impl ManagedRef {
    pub(super) fn new(kind: &str, id: &str) -> Self {
        Self { kind: kind.to_owned(), id: id.to_owned() }
    }
}

/// XML under construction.
#[derive(Clone, Debug, Default)]
pub(super) struct Xml(String);

impl Xml {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn text(self, tag: &str, value: impl Display) -> Self {
        self.raw(tag, "", &escape(&value.to_string()))
    }

    pub(super) fn node(self, tag: &str, inner: Self) -> Self {
        self.raw(tag, "", &inner.0)
    }

    /// An element whose declared type is abstract or has subtypes: the type is written out.
    pub(super) fn typed(self, tag: &str, kind: &str, inner: Self) -> Self {
        self.raw(tag, &format!(" xsi:type=\"{kind}\""), &inner.0)
    }

    pub(super) fn reference(self, tag: &str, to: &ManagedRef) -> Self {
        self.raw(tag, &format!(" type=\"{}\"", escape(&to.kind)), &escape(&to.id))
    }

    /// An entry of an `OptionValue` list with a string.
    pub(super) fn option(self, tag: &str, key: &str, value: impl Display) -> Self {
        let value = format!("<value xsi:type=\"xsd:string\">{}</value>", escape(&value.to_string()));
        self.typed(tag, "OptionValue", Self(Self::new().text("key", key).0 + &value))
    }

    /// What was read, written again under a tag.
    pub(super) fn element(self, tag: &str, element: &Element) -> Self {
        let mut attributes = String::new();
        if let Some(kind) = &element.kind {
            attributes += &format!(" xsi:type=\"{}\"", escape(kind));
        }
        if let Some(refers_to) = &element.refers_to {
            attributes += &format!(" type=\"{}\"", escape(refers_to));
        }
        let inner = element.children.iter().fold(Self::new(), |xml, child| xml.element(&child.name, child));
        self.raw(tag, &attributes, &(escape(&element.text) + &inner.0))
    }

    /// Appends another piece.
    pub(super) fn join(mut self, piece: &Self) -> Self {
        self.0 += &piece.0;
        self
    }

    /// The SOAP envelope around a call.
    pub(super) fn envelope(method: &str, this: &ManagedRef, arguments: &Self) -> String {
        let this = Self::new().reference("_this", this);
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
             <soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" xmlns:xsd=\"{XSD}\" \
             xmlns:xsi=\"{XSI}\"><soapenv:Body><{method} xmlns=\"urn:vim25\">{}{}</{method}></soapenv:Body>\
             </soapenv:Envelope>",
            this.0, arguments.0
        )
    }

    fn raw(mut self, tag: &str, attributes: &str, inner: &str) -> Self {
        self.0 += &format!("<{tag}{attributes}>{inner}</{tag}>");
        self
    }
}

/// Makes text safe between tags and in attributes; characters that XML cannot hold at all are dropped.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\r' => out.push_str("&#13;"),
            '\t' | '\n' => out.push(c),
            '\0'..'\u{20}' | '\u{fffe}' | '\u{ffff}' => {}
            _ => out.push(c),
        }
    }
    out
}

/// An element that was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Element {
    pub(super) name: String,
    /// `xsi:type`, without a prefix unless it is one of XML Schema's own.
    pub(super) kind: Option<String>,
    /// The plain `type`, which references carry.
    refers_to: Option<String>,
    pub(super) text: String,
    pub(super) children: Vec<Element>,
}

impl Element {
    pub(super) fn parse(text: &str) -> Result<Self, roxmltree::Error> {
        Ok(Self::from_node(roxmltree::Document::parse(text)?.root_element()))
    }

    fn from_node(node: roxmltree::Node<'_, '_>) -> Self {
        let kind = node.attribute((XSI, "type")).map(|kind| match kind.split_once(':') {
            Some((prefix, local)) if node.lookup_namespace_uri(Some(prefix)) == Some(XSD) => format!("xsd:{local}"),
            Some((_, local)) => local.to_owned(),
            None => kind.to_owned(),
        });
        let children: Vec<_> = node.children().filter(roxmltree::Node::is_element).map(Self::from_node).collect();
        // White space between elements means nothing.
        let text = if children.is_empty() {
            node.children().filter(roxmltree::Node::is_text).filter_map(|n| n.text()).collect()
        } else {
            String::new()
        };
        // A look-up by the bare name would find `xsi:type` as well.
        let refers_to = node.attributes().find(|a| a.namespace().is_none() && a.name() == "type");
        Self {
            name: node.tag_name().name().to_owned(),
            kind,
            refers_to: refers_to.map(|attribute| attribute.value().to_owned()),
            text,
            children,
        }
    }

    /// One with nothing but text in it.
    pub(super) fn leaf(name: &str, text: impl Display) -> Self {
        Self { name: name.to_owned(), text: text.to_string(), ..Self::default() }
    }

    /// An entry of an `OptionValue` list with a string.
    pub(super) fn option(name: &str, key: &str, value: impl Display) -> Self {
        let value = Self { kind: Some("xsd:string".to_owned()), ..Self::leaf("value", value) };
        let children = vec![Self::leaf("key", key), value];
        Self { kind: Some("OptionValue".to_owned()), children, ..Self::leaf(name, "") }
    }

    /// The first element at a path of names, e.g. `info/state`.
    pub(super) fn at(&self, path: &str) -> Option<&Self> {
        path.split('/').try_fold(self, |element, name| element.children.iter().find(|child| child.name == name))
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    pub(super) fn text_at(&self, path: &str) -> Option<&str> {
        self.at(path).map(|element| element.text.as_str())
    }

    pub(super) fn value_at<T: FromStr>(&self, path: &str) -> Option<T> {
        self.text_at(path)?.trim().parse().ok()
    }

    pub(super) fn is_kind(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }

    /// The managed object that this refers to.
    pub(super) fn managed(&self) -> Option<ManagedRef> {
        Some(ManagedRef { kind: self.refers_to.clone()?, id: self.text.trim().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_unknown_elements_do_not_matter() {
        let text = r#"<a:r xmlns:a="urn:vim25" xmlns:i="http://www.w3.org/2001/XMLSchema-instance">
            <a:novelty/><a:val type="VirtualMachine" i:type="a:ManagedObjectReference">vm-1</a:val></a:r>"#;
        let root = Element::parse(text).expect("well-formed");
        let val = root.at("val").expect("there");
        assert_eq!(val.managed(), Some(ManagedRef::new("VirtualMachine", "vm-1")));
        assert!(val.is_kind("ManagedObjectReference"));
        assert!(root.at("val/none").is_none());
    }

    #[test]
    fn everything_is_escaped() {
        let nasty = "</x>&\"'<\u{0}\u{b}é\r\n";
        let Xml(xml) = Xml::new().text("x", nasty).option("o", "k\"", nasty);
        let root = Element::parse(&format!("<r xmlns:xsi=\"{XSI}\">{xml}</r>")).expect("well-formed");
        let kept = nasty.replace(['\u{0}', '\u{b}'], "");
        assert_eq!(root.text_at("x"), Some(kept.as_str()));
        assert_eq!(root.text_at("o/value"), Some(kept.as_str()));
    }

    #[test]
    fn what_was_read_can_be_sent_back() {
        let text = format!(
            "<d xmlns:q=\"{XSI}\" xmlns:s=\"{XSD}\" q:type=\"VirtualDisk\"><key>2000</key>\
             <backing q:type=\"Flat\"><datastore type=\"Datastore\">ds-1</datastore></backing>\
             <v q:type=\"s:string\">a&amp;b</v></d>"
        );
        let Xml(xml) = Xml::new().element("device", &Element::parse(&text).expect("well-formed"));
        assert_eq!(
            xml,
            "<device xsi:type=\"VirtualDisk\"><key>2000</key><backing xsi:type=\"Flat\">\
             <datastore type=\"Datastore\">ds-1</datastore></backing><v xsi:type=\"xsd:string\">a&amp;b</v></device>"
        );
    }

    #[test]
    fn a_document_type_is_refused() {
        assert!(Element::parse("<!DOCTYPE r [<!ENTITY a \"b\">]><r>&a;</r>").is_err());
    }
}
