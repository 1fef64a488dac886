//! Which route a request takes: a trie over the path templates.
//!
//! At each segment a literal goes before `*`, and `*` before `**`; where the preferred branch has no route for the
//! request's verb, the next one is tried.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use http::Method;

use crate::error::Error;
use crate::rules::Route;
use crate::template::{Segment, decode};

/// The trie.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<String, Node>,
    one: Option<Box<Node>>,
    rest: Option<Box<Node>>,
    /// What ends here, by custom verb and then by HTTP verb.
    ends: HashMap<String, BTreeMap<String, Route>>,
}

/// What a path leads to.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    /// A route, and the value of each of its variables.
    Route(&'a Route, Vec<String>),
    /// The path exists, with these verbs.
    OtherVerbs(Vec<&'a str>),
    Nothing,
    /// An escape in the path is malformed.
    Malformed,
}

impl Routes {
    /// Builds the trie; an error when two rpcs want the same requests.
    pub(crate) fn new(routes: Vec<Route>) -> Result<Self, Error> {
        let mut trie = Self::default();
        for route in routes {
            let mut node = &mut trie.root;
            for segment in &route.template.segments {
                node = match segment {
                    Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
                    Segment::One => node.one.get_or_insert_default(),
                    Segment::Rest => node.rest.get_or_insert_default(),
                };
            }
            let ends = node.ends.entry(route.template.verb.clone()).or_default();
            if let Some(other) = ends.get(&route.verb) {
                return Err(Error::Conflict {
                    first: other.rpc.name.clone(),
                    second: route.rpc.name.clone(),
                    verb: route.verb,
                });
            }
            ends.insert(route.verb.clone(), route);
        }
        Ok(trie)
    }

    /// Finds the route of a request. `HEAD` takes that of `GET`.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Found<'_> {
        let method = if method == Method::HEAD { "GET" } else { method.as_str() };
        let Some(mut raw) = path.strip_prefix('/').map(|path| path.split('/').collect::<Vec<_>>()) else {
            return Found::Nothing;
        };
        let Some(plain) = raw.iter().map(|segment| decode(segment, false)).collect::<Option<Vec<_>>>() else {
            return Found::Malformed;
        };
        let last = raw.len() - 1;
        // A custom verb has a name, and no value ends in a bare colon.
        if raw[last].ends_with(':') {
            return Found::Nothing;
        }
        let mut allowed = BTreeSet::new();
        let mut found = None;
        if let Some((head, verb)) = raw[last].rsplit_once(':') {
            let mut shortened = plain.clone();
            shortened[last] = decode(head, false).unwrap_or_default();
            found = self.root.find(&shortened, verb, method, &mut allowed);
            if found.is_some() {
                raw[last] = head;
            }
        }
        // A colon can also be part of a value. Then the whole request must fit: an unknown custom verb is no path.
        if found.is_none() && allowed.is_empty() {
            found = self.root.find(&plain, "", method, &mut allowed);
            if raw[last].contains(':') {
                allowed.clear();
            }
        }
        if allowed.contains("GET") {
            allowed.insert("HEAD");
        }
        match found {
            Some(route) => captured(route, &raw),
            None if allowed.is_empty() => Found::Nothing,
            None => Found::OtherVerbs(allowed.into_iter().collect()),
        }
    }
}

impl Node {
    fn find<'a>(
        &'a self,
        path: &[String],
        verb: &str,
        method: &str,
        allowed: &mut BTreeSet<&'a str>,
    ) -> Option<&'a Route> {
        let Some((segment, left)) = path.split_first() else {
            let rest = self.rest.as_ref().and_then(|rest| rest.end(verb, method, allowed));
            return self.end(verb, method, allowed).or(rest);
        };
        if let Some(found) = self.literals.get(segment).and_then(|node| node.find(left, verb, method, allowed)) {
            return Some(found);
        }
        let one = self.one.as_ref().filter(|_| !segment.is_empty());
        if let Some(found) = one.and_then(|node| node.find(left, verb, method, allowed)) {
            return Some(found);
        }
        self.rest.as_ref()?.end(verb, method, allowed)
    }

    fn end<'a>(&'a self, verb: &str, method: &str, allowed: &mut BTreeSet<&'a str>) -> Option<&'a Route> {
        let ends = self.ends.get(verb)?;
        allowed.extend(ends.keys().map(String::as_str));
        ends.get(method)
    }
}

fn captured<'a>(route: &'a Route, raw: &[&str]) -> Found<'a> {
    match route.template.variables.iter().map(|variable| variable.value(raw)).collect() {
        Some(values) => Found::Route(route, values),
        None => Found::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use virtualstack_proto::{DESCRIPTOR_POOL, vendored};

    use super::{Found, Routes};
    use crate::rules;

    #[test]
    fn the_product_has_its_routes() {
        let routes = rules::routes(&DESCRIPTOR_POOL, vendored::HTTP_RULES).expect("the rules are fine");
        let routes = Routes::new(routes).expect("there are no conflicts");
        for (method, path, name, values) in [
            (Method::GET, "/v1/vms", "virtualstack.compute.v1.VmService.ListVms", vec![]),
            (Method::GET, "/v1/vms/7", "virtualstack.compute.v1.VmService.GetVm", vec!["vms/7"]),
            (Method::GET, "/v1/vms:watch", "virtualstack.watch.v1.WatchService.WatchVms", vec![]),
            (Method::GET, "/v1/operations:watch", "virtualstack.watch.v1.WatchService.WatchOperations", vec![]),
            (Method::PATCH, "/v1/vms/7", "virtualstack.compute.v1.VmService.UpdateVm", vec!["vms/7"]),
            (Method::POST, "/v1/vms/7:start", "virtualstack.compute.v1.VmService.StartVm", vec!["vms/7"]),
            (Method::GET, "/v1/vms/7/events", "virtualstack.compute.v1.VmService.ListVmEvents", vec!["vms/7"]),
            (Method::GET, "/v1/users/me", "virtualstack.iam.v1.MeService.GetMe", vec![]),
            (Method::POST, "/v1/auth:login", "virtualstack.iam.v1.AuthService.Login", vec![]),
            (Method::GET, "/v1/operations", "google.longrunning.Operations.ListOperations", vec![]),
            (
                Method::POST,
                "/v1/operations/7:wait",
                "google.longrunning.Operations.WaitOperation",
                vec!["operations/7"],
            ),
        ] {
            let Found::Route(route, found) = routes.find(&method, path) else { panic!("{method} {path}") };
            assert_eq!((route.rpc.name.as_str(), found), (name, values.iter().map(ToString::to_string).collect()));
        }
        assert!(matches!(routes.find(&Method::GET, "/v1/operations/7/more"), Found::Nothing));
        assert!(matches!(routes.find(&Method::GET, "*"), Found::Nothing));
        for path in ["/v1/vms:", "/v1/vms/7:", "/v1/vms/7:start:", "/v1/vms/7::", "/v1/:", "/:"] {
            for method in [Method::GET, Method::POST, Method::PATCH, Method::DELETE, Method::OPTIONS] {
                assert!(matches!(routes.find(&method, path), Found::Nothing), "{method} {path}");
            }
        }
    }
}
