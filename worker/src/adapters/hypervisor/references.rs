//! What a hypervisor calls its things. Nobody but its adapter reads it.

use serde::{Deserialize, Serialize};

/// A template as the hypervisor refers to it; opaque outside the adapter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TemplateRef(pub String);

/// A task of the hypervisor; opaque outside the adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskRef(pub String);
