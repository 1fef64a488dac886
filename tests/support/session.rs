//! Somebody who is signed in, over gRPC and over REST.

use std::time::Duration;

use prost::Message as _;
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_types::StatusExt as _;
use virtualstack_proto::google::longrunning::operation::Result as Outcome;
use virtualstack_proto::google::longrunning::operations_client::OperationsClient;
use virtualstack_proto::google::longrunning::{Operation, WaitOperationRequest};
use virtualstack_proto::virtualstack::compute::v1::template_service_client::TemplateServiceClient;
use virtualstack_proto::virtualstack::compute::v1::vm_service_client::VmServiceClient;
use virtualstack_proto::virtualstack::compute::v1::{
    CreateVmRequest, DeleteVmRequest, GetVmRequest, ListTemplatesRequest, StartVmRequest, StopVmRequest, Template, Vm,
};
use virtualstack_proto::virtualstack::iam::v1::auth_service_client::AuthServiceClient;
use virtualstack_proto::virtualstack::iam::v1::tenant_service_client::TenantServiceClient;
use virtualstack_proto::virtualstack::iam::v1::{CreateTenantRequest, LoginRequest, LoginResponse, Tenant};

use super::ControlPlane;
use super::first_admin::{ADMIN, DEMO, PASSWORD};

impl ControlPlane {
    /// Signs in.
    pub(crate) async fn login(&self, email: &str, tenant: &str) -> Session {
        Session::login(self, email, PASSWORD, tenant).await.expect("a login")
    }

    /// The demo tenant's admin, who is the platform's admin too.
    pub(crate) async fn admin(&self) -> Session {
        self.login(ADMIN, DEMO).await
    }

    /// The platform's admin, in the provider tenant.
    pub(crate) async fn operator(&self) -> Session {
        self.login(ADMIN, "provider").await
    }

    /// A new tenant, and its admin signed in.
    pub(crate) async fn tenant(&self, slug: &str) -> Session {
        let operator = self.operator().await;
        let email = format!("admin@{slug}.example.com");
        let request = CreateTenantRequest {
            tenant: Some(Tenant { slug: slug.to_owned(), display_name: slug.to_owned(), ..Default::default() }),
            admin_email: email.clone(),
            admin_password: PASSWORD.to_owned(),
            ..Default::default()
        };
        operator.tenants().create_tenant(operator.request(request)).await.expect("a tenant");
        self.login(&email, slug).await
    }

    /// An active member of a tenant with one role, signed in. Who has an account already keeps it.
    pub(crate) async fn member(&self, email: &str, tenant: &str, role: &str) -> Session {
        self.database
            .execute(&format!(
                "INSERT INTO iam.users (id, email, display_name, password_hash) \
                    SELECT gen_random_uuid(), '{email}', '{email}', password_hash FROM iam.users WHERE email = '{ADMIN}' \
                    ON CONFLICT DO NOTHING; \
                 INSERT INTO iam.memberships (tenant_id, id, account_id, email, display_name, state) \
                    SELECT t.id, gen_random_uuid(), u.id, u.email, u.display_name, 'ACTIVE' FROM iam.tenants t, iam.users u \
                    WHERE t.slug = '{tenant}' AND u.email = '{email}'; \
                 INSERT INTO iam.user_tenant_roles (tenant_id, membership_id, role_id) \
                    SELECT m.tenant_id, m.id, r.id FROM iam.memberships m JOIN iam.users u ON u.id = m.account_id \
                    JOIN iam.tenant_roles r ON r.tenant_id = m.tenant_id JOIN iam.tenants t ON t.id = m.tenant_id \
                    WHERE u.email = '{email}' AND t.slug = '{tenant}' AND r.display_name = '{role}'"
            ))
            .await;
        self.login(email, tenant).await
    }
}

/// Somebody who is signed in.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) channel: Channel,
    pub(crate) tokens: LoginResponse,
    http: String,
}

impl Session {
    /// Signs in.
    pub(crate) async fn login(plane: &ControlPlane, email: &str, password: &str, tenant: &str) -> Result<Self, Status> {
        let channel = Channel::from_shared(plane.grpc.clone()).expect("a URL").connect().await.expect("a connection");
        let request =
            LoginRequest { email: email.to_owned(), password: password.to_owned(), tenant: tenant.to_owned() };
        let tokens = AuthServiceClient::new(channel.clone()).login(request).await?.into_inner();
        Ok(Self { channel, tokens, http: plane.http.clone() })
    }

    /// A request with the access token.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let value = format!("Bearer {}", self.tokens.access_token).parse().expect("metadata");
        request.metadata_mut().insert("authorization", value);
        request
    }

    pub(crate) fn auth(&self) -> AuthServiceClient<Channel> {
        AuthServiceClient::new(self.channel.clone())
    }

    pub(crate) fn tenants(&self) -> TenantServiceClient<Channel> {
        TenantServiceClient::new(self.channel.clone())
    }

    pub(crate) fn vms(&self) -> VmServiceClient<Channel> {
        VmServiceClient::new(self.channel.clone())
    }

    pub(crate) fn operations(&self) -> OperationsClient<Channel> {
        OperationsClient::new(self.channel.clone())
    }

    pub(crate) async fn list_templates(&self) -> Vec<Template> {
        let mut client = TemplateServiceClient::new(self.channel.clone());
        client
            .list_templates(self.request(ListTemplatesRequest::default()))
            .await
            .expect("templates")
            .into_inner()
            .templates
    }

    /// Asks for a VM from the first template.
    pub(crate) async fn create(&self, display_name: &str) -> Result<Operation, Status> {
        let template = self.list_templates().await.pop().expect("a template").name;
        let vm = Vm { display_name: display_name.to_owned(), template, ..Default::default() };
        let request = CreateVmRequest { vm: Some(vm), ..Default::default() };
        Ok(self.vms().create_vm(self.request(request)).await?.into_inner())
    }

    /// Makes a VM and waits until it runs.
    pub(crate) async fn running(&self, display_name: &str) -> Vm {
        let operation = self.create(display_name).await.expect("accepted");
        self.vm_of(operation).await
    }

    pub(crate) async fn get(&self, name: &str) -> Result<Vm, Status> {
        Ok(self.vms().get_vm(self.request(GetVmRequest { name: name.to_owned() })).await?.into_inner())
    }

    pub(crate) async fn stop(&self, name: &str) -> Result<Operation, Status> {
        let request = StopVmRequest { name: name.to_owned(), ..Default::default() };
        Ok(self.vms().stop_vm(self.request(request)).await?.into_inner())
    }

    pub(crate) async fn start(&self, name: &str) -> Result<Operation, Status> {
        let request = StartVmRequest { name: name.to_owned(), ..Default::default() };
        Ok(self.vms().start_vm(self.request(request)).await?.into_inner())
    }

    pub(crate) async fn delete(&self, name: &str, force: bool) -> Result<Operation, Status> {
        let request = DeleteVmRequest { name: name.to_owned(), force, ..Default::default() };
        Ok(self.vms().delete_vm(self.request(request)).await?.into_inner())
    }

    /// Waits until an operation is done.
    pub(crate) async fn wait(&self, operation: &Operation) -> Operation {
        let timeout = Some(Duration::from_secs(30).try_into().expect("a duration"));
        let request = WaitOperationRequest { name: operation.name.clone(), timeout };
        let done = self.operations().wait_operation(self.request(request)).await.expect("an operation").into_inner();
        assert!(done.done, "not done after 30 s: {done:?}");
        done
    }

    /// Waits until an operation is done; the VM it gives.
    pub(crate) async fn vm_of(&self, operation: Operation) -> Vm {
        match self.wait(&operation).await.result {
            Some(Outcome::Response(any)) => {
                assert_eq!(any.type_url, format!("type.googleapis.com/{}", "virtualstack.compute.v1.Vm"));
                Vm::decode(any.value.as_slice()).expect("a VM")
            }
            other => panic!("the operation failed: {other:?}"),
        }
    }

    /// The same over REST.
    pub(crate) fn rest(&self) -> Rest {
        Rest::new(&self.http, Some(&self.tokens.access_token))
    }
}

/// A REST client.
pub(crate) struct Rest {
    client: reqwest::Client,
    http: String,
    /// Header and value that it is authenticated by.
    credential: Option<(&'static str, String)>,
}

impl Rest {
    pub(crate) fn new(http: &str, token: Option<&str>) -> Self {
        // reqwest wants one even where nothing is encrypted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // And by itself it would read all that this machine trusts, which takes longer than most calls.
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a client");
        let credential = token.map(|token| ("authorization", format!("Bearer {token}")));
        Self { client, http: http.to_owned(), credential }
    }

    /// A client with an API key.
    pub(crate) fn with_key(http: &str, key: &str) -> Self {
        Self { credential: Some(("x-api-key", key.to_owned())), ..Self::new(http, None) }
    }

    /// A request to a path, with the credential.
    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().expect("a method");
        let request = self.client.request(method, format!("{}{path}", self.http));
        match &self.credential {
            Some((header, value)) => request.header(*header, value),
            None => request,
        }
    }

    /// Status and JSON of a call.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = self.request(method, path);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let response = request.send().await.expect("a response");
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or(json!(null)))
    }
}

/// The stable reason of an error.
pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}
