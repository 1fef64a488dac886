//! Fields that mean the same in every request are the same: number, type, rules and comment. Clients learn them once.
//!
//! The numbers: 1 is what the call works on or in, 2 the resource or the size of a page, 3 to 8 what the table below
//! says, and from 9 on stands what only this request has. A number whose field a request does not have stays free, so that
//! the field can be added later.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{Cardinality, FieldDescriptor, Kind, MessageDescriptor, Value};
use virtualstack_proto::DESCRIPTOR_POOL;

/// Number of a resource in the request that creates or updates it.
const RESOURCE: u32 = 2;

/// The first number that a request may use for a field of its own.
const FIRST_OWN: u32 = 9;

/// A field that every request has under the same name, number and rules, or does not have.
struct Standard {
    name: &'static str,
    number: u32,
    /// What its comment is, or begins with.
    comment: &'static str,
    /// Whether the comment may say more.
    more: bool,
}

const fn field(name: &'static str, number: u32, comment: &'static str) -> Standard {
    Standard { name, number, comment, more: false }
}

const fn field_with_more(name: &'static str, number: u32, comment: &'static str) -> Standard {
    Standard { name, number, comment, more: true }
}

const STANDARD: &[Standard] = &[
    field_with_more("parent", 1, "Full name of the "),
    field_with_more("name", 1, "Full name, \""),
    field("page_size", 2, "At most this many; 50 by default, larger than 1000 is taken as 1000."),
    field("page_token", 3, "nextPageToken of the page before."),
    field(
        "filter",
        4,
        "Which to list, as AIP-160 says: comparisons of fields, AND, OR, NOT, \":\" for has, \"web*\" for a prefix; bare \
         words search.",
    ),
    field(
        "order_by",
        5,
        "Fields to order by, each with \"desc\" behind it if the largest shall come first; comma-separated.",
    ),
    field("show_total", 6, "Whether to count all that the filter lets through."),
    field_with_more("show_deleted", 7, "Also list those that are deleted and not purged yet."),
    field_with_more("update_mask", 3, "Fields to change: "),
    field("etag", 4, "Delete only if it still has this etag."),
    field_with_more("force", 5, "Purge at once."),
    field_with_more(
        "request_id",
        6,
        "A UUID of the caller's. A repeat within 24 hours does nothing more: it gets the same reply, with the resource as \
         it is now.",
    ),
    field_with_more("validate_only", 7, "Whether to run every check and change nothing."),
    field_with_more("allow_missing", 8, "Whether to create it where it does not exist."),
];

/// What every list of a collection can do.
const OF_LISTS: [&str; 5] = ["page_size", "page_token", "filter", "order_by", "show_total"];

/// Fields of the reply to a list, by number; the first is the resources.
const OF_PAGES: [(&str, u32, &str); 2] = [
    ("next_page_token", 2, "Token of the next page; empty on the last one."),
    ("total_size", 3, "How many there are in all, if that was asked for."),
];

/// Fields that the first message of a stream has and the others leave out, so they cannot be required.
const FIRST_ONLY: [&str; 3] = [
    "virtualstack.compute.v1.UploadTemplateRequest.name",
    "virtualstack.support.v1.UploadTicketAttachmentRequest.parent",
    "virtualstack.support.v1.UploadTenantTicketAttachmentRequest.parent",
];

/// Messages of ours. Those that are vendored keep what their authors gave them.
fn messages() -> impl Iterator<Item = MessageDescriptor> {
    DESCRIPTOR_POOL.all_messages().filter(|message| message.package_name().starts_with("virtualstack."))
}

fn requests() -> impl Iterator<Item = MessageDescriptor> {
    messages().filter(|message| message.name().ends_with("Request"))
}

/// The comment above a field, on one line.
fn comment(field: &FieldDescriptor) -> String {
    let file = field.parent_file();
    let locations = file.file_descriptor_proto().source_code_info.as_ref().map(|info| &info.location);
    let found = locations.and_then(|all| all.iter().find(|location| location.path == field.path()));
    let text = found.map(|location| location.leading_comments().to_owned()).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The resource type that a field names, if it does.
pub(crate) fn referenced(field: &FieldDescriptor) -> Option<String> {
    let extension = DESCRIPTOR_POOL.get_extension_by_name("google.api.resource_reference").expect("the option");
    let options = field.options();
    options.has_extension(&extension).then_some(())?;
    let reference = options.get_extension(&extension);
    Some(reference.as_message()?.get_field_by_name("type")?.as_str()?.to_owned())
}

/// Whether a message is a resource.
pub(crate) fn is_resource(message: &MessageDescriptor) -> bool {
    let extension = DESCRIPTOR_POOL.get_extension_by_name("google.api.resource").expect("the option");
    message.options().has_extension(&extension)
}

/// Whether a field carries the resource that a request creates or updates.
fn carries_resource(request: &MessageDescriptor, field: &FieldDescriptor) -> bool {
    let writes = request.name().starts_with("Create") || request.name().starts_with("Update");
    writes && matches!(field.kind(), Kind::Message(message) if is_resource(&message))
}

#[test]
fn standard_fields_are_the_same_in_every_request() {
    let mut wrong = Vec::new();
    let mut seen = BTreeMap::<&str, usize>::new();
    let mut first = BTreeMap::<(String, Option<String>), (String, Value, String)>::new();
    for request in requests() {
        for field in request.fields() {
            let Some(standard) = STANDARD.iter().find(|standard| standard.name == field.name()) else { continue };
            *seen.entry(standard.name).or_default() += 1;
            let (at, said) = (field.full_name().to_owned(), comment(&field));
            if field.number() != standard.number {
                wrong.push(format!("{at} = {}: its number is {} everywhere", field.number(), standard.number));
            }
            let fits = if standard.more { said.starts_with(standard.comment) } else { said == standard.comment };
            if !fits {
                wrong.push(format!("{at}: its comment is {said:?}, and everywhere {:?}", standard.comment));
            }
            // Names of one resource are told in the same words; what more a comment says comes in a sentence of its own.
            let of = referenced(&field);
            let sentence = said.split_inclusive(". ").next().unwrap_or_default().trim_end().to_owned();
            let about = if of.is_some() { sentence } else { standard.comment.to_owned() };
            if FIRST_ONLY.contains(&field.full_name()) {
                continue;
            }
            let facts =
                (format!("{:?} {:?}", field.kind(), field.cardinality()), Value::Message(field.options()), about);
            let known = first.entry((standard.name.to_owned(), of)).or_insert_with(|| facts.clone());
            if *known != facts {
                // Options cannot be printed: they know the pool that they are in.
                wrong.push(format!(
                    "{at}: type, rules or comment differ from those of others: {} {:?}",
                    facts.0, facts.2
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for name in OF_LISTS.iter().chain(&["parent", "name", "request_id", "validate_only", "update_mask", "etag"]) {
        assert!(seen.get(name).is_some_and(|times| *times > 3), "{name}: seen {:?} times", seen.get(name));
    }
}

#[test]
fn a_request_keeps_the_numbers_of_standard_fields_free() {
    let mut wrong = Vec::new();
    for request in requests() {
        let is_standard = |field: &FieldDescriptor| STANDARD.iter().any(|standard| standard.name == field.name());
        if !request.fields().any(|field| is_standard(&field) || carries_resource(&request, &field)) {
            continue;
        }
        for field in request.fields().filter(|field| !is_standard(field)) {
            let fits = match field.number() {
                RESOURCE => carries_resource(&request, &field),
                number => number >= FIRST_OWN && !carries_resource(&request, &field),
            };
            if !fits {
                let may = format!("a resource that is written is {RESOURCE}, other fields begin at {FIRST_OWN}");
                wrong.push(format!("{} = {}: {may}", field.full_name(), field.number()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_list_is_asked_for_and_answered_alike() {
    let ours = DESCRIPTOR_POOL.services().filter(|service| service.package_name().starts_with("virtualstack."));
    let lists: Vec<_> = ours
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .filter(|method| method.name().starts_with("List"))
        .collect();
    assert!(lists.len() >= 12, "{lists:?}");
    for list in lists {
        let (request, page) = (list.input(), list.output());
        for name in OF_LISTS {
            assert!(request.get_field_by_name(name).is_some(), "{}: no {name}", request.full_name());
        }
        let resources = page.get_field(1).filter(|field| field.cardinality() == Cardinality::Repeated);
        assert!(resources.is_some(), "{}: number 1 is the resources", page.full_name());
        for (name, number, said) in OF_PAGES {
            let field = page.get_field_by_name(name).unwrap_or_else(|| panic!("{}: no {name}", page.full_name()));
            assert_eq!((field.number(), comment(&field).as_str()), (number, said), "{}", field.full_name());
        }
    }
}

/// What names a resource says so, and is therefore checked; see `proto/build.rs`.
#[test]
fn every_name_of_a_request_says_what_it_names() {
    let nameless: Vec<_> = requests()
        .flat_map(|request| request.fields().collect::<Vec<_>>())
        .filter(|field| ["name", "parent"].contains(&field.name()) && referenced(field).is_none())
        .map(|field| field.full_name().to_owned())
        .collect();
    assert!(nameless.is_empty(), "no google.api.resource_reference: {nameless:?}");
}

/// A name's form is that of its resource's pattern, and is written nowhere else.
#[test]
fn the_form_of_a_name_is_derived_from_its_resource() {
    let mut sources = Vec::new();
    let mut folders = vec![concat!(env!("CARGO_MANIFEST_DIR"), "/proto/virtualstack").into()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir::<std::path::PathBuf>(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                sources.push(path);
            }
        }
    }
    assert!(sources.len() >= 10, "{sources:?}");
    for source in sources {
        let text = std::fs::read_to_string(&source).expect("a file");
        let twice = text.lines().find(|line| line.contains("pattern: \"^") || line.contains("pattern = \"^"));
        let twice = twice.filter(|line| line.contains('/') && line.contains("{8}"));
        assert_eq!(twice, None, "{}: google.api.resource has said it", source.display());
    }

    let rules = DESCRIPTOR_POOL.get_extension_by_name("buf.validate.field").expect("the option");
    let pattern = |message: &str, field: &str| {
        let message = DESCRIPTOR_POOL.get_message_by_name(message).expect("a message");
        let field = message.get_field_by_name(field).expect("a field");
        let options = field.options();
        let rules = options.get_extension(&rules).into_owned();
        let mut rules = rules.as_message().expect("rules").clone();
        if field.is_list() {
            let list = rules.get_field_by_name("repeated").expect("rules of a list").into_owned();
            let items = list.as_message().expect("a message").get_field_by_name("items").expect("items").into_owned();
            rules = items.as_message().expect("a message").clone();
        }
        let text = rules.get_field_by_name("string").expect("rules of a string").into_owned();
        let ignore = rules.get_field_by_name("ignore").expect("a field").as_enum_number();
        let pattern = text.as_message().expect("a message").get_field_by_name("pattern").expect("a field").into_owned();
        (pattern.as_str().unwrap_or_default().to_owned(), ignore == Some(1))
    };
    const UUID: &str = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";
    for (message, field, expected, may_be_empty) in [
        ("virtualstack.compute.v1.GetVmRequest", "name", format!("^vms/{UUID}$"), false),
        ("virtualstack.compute.v1.Vm", "name", format!("^vms/{UUID}$"), true),
        ("virtualstack.compute.v1.GetSnapshotRequest", "name", format!("^vms/{UUID}/snapshots/{UUID}$"), false),
        ("virtualstack.iam.v1.GetRoleRequest", "name", format!("^roles/({UUID}|[a-z_]{{1,40}})$"), false),
        ("virtualstack.iam.v1.User", "roles", format!("^roles/({UUID}|[a-z_]{{1,40}})$"), false),
        ("virtualstack.iam.v1.SetRoleUsersRequest", "users", format!("^users/{UUID}$"), false),
        ("virtualstack.iam.v1.GetTenantRequest", "name", format!("^tenants/({UUID}|[-a-zA-Z0-9]{{1,40}})$"), false),
        (
            "virtualstack.compute.v1.GetTenantQuotaRequest",
            "name",
            format!("^tenants/({UUID}|[-a-zA-Z0-9]{{1,40}})/quota$"),
            false,
        ),
        ("virtualstack.iam.v1.ExplainRequest", "user", format!("^users/({UUID}|me)$"), true),
    ] {
        assert_eq!(pattern(message, field), (expected, may_be_empty), "{message}.{field}");
    }
    // All the others, by the same code.
    let mut types = BTreeSet::new();
    for field in requests().flat_map(|request| request.fields().collect::<Vec<_>>()) {
        if let Some(of) = referenced(&field) {
            let (pattern, _) = pattern(field.parent_message().full_name(), field.name());
            assert!(pattern.starts_with('^') && pattern.ends_with('$'), "{}: {pattern:?}", field.full_name());
            types.insert(of);
        }
    }
    assert!(types.len() >= 8, "{types:?}");
}
