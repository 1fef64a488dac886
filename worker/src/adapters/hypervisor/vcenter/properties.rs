//! Reading properties of managed objects.

use std::sync::Arc;

use super::escapes::unescaped;
use super::faults::Error;
use super::session::Session;
use super::soap::Call;
use super::xml::{Element, ManagedRef, Xml};

/// An object with those of the desired properties that it has.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) reference: ManagedRef,
    properties: Vec<(String, Element)>,
}

impl Object {
    /// Names are as people gave them from here on, whatever they are those of.
    pub(super) fn from_element(element: &Element) -> Option<Self> {
        let properties = element.all("propSet").filter_map(|property| {
            let (name, mut value) = (property.text_at("name")?.to_owned(), property.at("val")?.clone());
            if name == "name" {
                value.text = unescaped(&value.text);
            }
            Some((name, value))
        });
        Some(Self { reference: element.at("obj")?.managed()?, properties: properties.collect() })
    }

    pub(super) fn get(&self, name: &str) -> Option<&Element> {
        self.properties.iter().find(|(property, _)| property == name).map(|(_, value)| value)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).map(|value| value.text.as_str())
    }
}

impl Session {
    /// Properties of one object; none if it does not exist.
    pub(super) async fn read(self: &Arc<Self>, object: &ManagedRef, paths: &[&str]) -> Result<Option<Object>, Error> {
        Ok(self.read_all(std::slice::from_ref(object), &object.kind, paths).await?.pop())
    }

    /// Properties of objects of one type; those that do not exist are left out.
    pub(super) async fn read_all(
        self: &Arc<Self>,
        objects: &[ManagedRef],
        kind: &str,
        paths: &[&str],
    ) -> Result<Vec<Object>, Error> {
        if objects.is_empty() {
            return Ok(Vec::new());
        }
        let objects = objects.iter().fold(Xml::new(), |xml, object| {
            xml.node("objectSet", Xml::new().reference("obj", object).text("skip", false))
        });
        match self.retrieve(kind, paths, &objects).await {
            // Not all servers honour the wish to leave out what is missing, when all of it is.
            Err(error) if error.is("ManagedObjectNotFound") => Ok(Vec::new()),
            outcome => outcome,
        }
    }

    /// Properties of all objects of a type below a container.
    pub(super) async fn list(
        self: &Arc<Self>,
        container: &ManagedRef,
        kind: &str,
        paths: &[&str],
    ) -> Result<Vec<Object>, Error> {
        let manager = self.login().await?.service("viewManager")?;
        let arguments = Xml::new().reference("container", container).text("type", kind).text("recursive", true);
        let view = self
            .call(&Call::read("CreateContainerView", &manager, arguments))
            .await?
            .at("returnval")
            .and_then(Element::managed)
            .ok_or_else(|| Error::Setup("CreateContainerView gave no view".into()))?;
        let traversal =
            Xml::new().text("name", "view").text("type", "ContainerView").text("path", "view").text("skip", false);
        let object =
            Xml::new().reference("obj", &view).text("skip", true).typed("selectSet", "TraversalSpec", traversal);
        let found = self.retrieve(kind, paths, &Xml::new().node("objectSet", object)).await;
        // A view that stays goes with the session.
        let _ = self.call(&Call::read("DestroyView", &view, Xml::new())).await;
        found
    }

    async fn retrieve(self: &Arc<Self>, kind: &str, paths: &[&str], objects: &Xml) -> Result<Vec<Object>, Error> {
        let collector = self.login().await?.service("propertyCollector")?;
        let properties =
            paths.iter().fold(Xml::new().text("type", kind).text("all", false), |xml, path| xml.text("pathSet", path));
        let filter = Xml::new().node("propSet", properties).join(objects).text("reportMissingObjectsInResults", true);
        let arguments = Xml::new().node("specSet", filter).node("options", Xml::new());
        let mut page = self.call(&Call::read("RetrievePropertiesEx", &collector, arguments)).await?;
        let mut found = Vec::new();
        while let Some(result) = page.at("returnval") {
            found.extend(result.all("objects").filter_map(Object::from_element));
            let Some(token) = result.text_at("token") else { break };
            let more = Call::read("ContinueRetrievePropertiesEx", &collector, Xml::new().text("token", token));
            page = self.call(&more).await?;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_read_has_no_escapes() {
        let text = r#"<objects xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><obj type="Datastore">datastore-1</obj>
            <propSet><name>name</name><val xsi:type="xsd:string">ssd 50%25%2ffast%5c</val></propSet>
            <propSet><name>summary.url</name><val xsi:type="xsd:string">ds:///a%2fb</val></propSet></objects>"#;
        let object = Object::from_element(&Element::parse(text).expect("well-formed")).expect("an object");
        assert_eq!((object.text("name"), object.text("summary.url")), (Some(r"ssd 50%/fast\"), Some("ds:///a%2fb")));
    }
}
