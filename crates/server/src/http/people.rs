//! Tenants, principals and keys, for admins.

use api::people::{
    KeyCreate, KeyList, KeyMade, KeyView, LoginInfo, Me, PeopleListQuery, PrincipalCreate,
    PrincipalList, PrincipalPut, PrincipalView, TenantCreate, TenantList, TenantMade, TenantView,
};
use api::{ErrorBody, routes};
use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;

use crate::App;
use crate::convert::{from_wire, people};
use crate::error::Error;
use crate::extract::{Caller, Json, KeyOf, NamedOf, Query, User};

/// Makes a tenant with its first admin and a key for that, which is told this once. For admins of the first tenant.
#[utoipa::path(post, path = routes::TENANTS, tag = "people", operation_id = "tenant_create",
    request_body = TenantCreate,
    responses((status = 201, description = "The tenant", body = TenantMade),
              (status = 400, description = "Nothing was made", body = ErrorBody),
              (status = 403, description = "Not for who asks", body = ErrorBody),
              (status = 409, description = "The name is taken", body = ErrorBody),
              (status = 429, description = "There are too many", body = ErrorBody)))]
pub(crate) async fn tenant_create(
    State(app): State<App>,
    User(ctx): User,
    Json(asked): Json<TenantCreate>,
) -> Result<(StatusCode, Answer<TenantMade>), Error> {
    let admin = asked.admin.as_deref().unwrap_or("admin");
    let made = app.service.tenant_create(&ctx, &asked.name, admin).await?;
    Ok((StatusCode::CREATED, Answer(people::tenant_made(made))))
}

/// Lists tenants, by id. For admins of the first tenant.
#[utoipa::path(get, path = routes::TENANTS, tag = "people", operation_id = "tenant_list",
    params(PeopleListQuery),
    responses((status = 200, description = "A page", body = TenantList),
              (status = 403, description = "Not for who asks", body = ErrorBody)))]
pub(crate) async fn tenant_list(
    State(app): State<App>,
    User(ctx): User,
    Query(query): Query<PeopleListQuery>,
) -> Result<Answer<TenantList>, Error> {
    let limit = from_wire::page_limit(query.limit)?;
    let page = app.service.tenant_list(&ctx, query.after.as_deref(), limit);
    Ok(Answer(people::tenants(page.await?)))
}

/// Deletes a tenant that has nothing any more; nobody gets in then. For admins of the first tenant.
#[utoipa::path(delete, path = routes::TENANT, tag = "people", operation_id = "tenant_remove",
    params(("name" = String, Path, description = "The tenant, by its name or its id")),
    responses((status = 200, description = "What it was", body = TenantView),
              (status = 403, description = "Not for who asks", body = ErrorBody),
              (status = 404, description = "No such tenant", body = ErrorBody),
              (status = 409, description = "It has something", body = ErrorBody)))]
pub(crate) async fn tenant_remove(
    State(app): State<App>,
    User(ctx): User,
    NamedOf(named): NamedOf,
) -> Result<Answer<TenantView>, Error> {
    let row = app.service.tenant_remove(&ctx, &named).await?;
    Ok(Answer(people::tenant(row)))
}

/// Lets a principal in. It can do nothing before it has a key. For admins.
#[utoipa::path(post, path = routes::PRINCIPALS, tag = "people", operation_id = "principal_create",
    request_body = PrincipalCreate,
    responses((status = 201, description = "The principal", body = PrincipalView),
              (status = 400, description = "Nothing was made", body = ErrorBody),
              (status = 403, description = "Not for who asks", body = ErrorBody),
              (status = 409, description = "There is one", body = ErrorBody),
              (status = 429, description = "There are too many", body = ErrorBody)))]
pub(crate) async fn principal_create(
    State(app): State<App>,
    User(ctx): User,
    Json(asked): Json<PrincipalCreate>,
) -> Result<(StatusCode, Answer<PrincipalView>), Error> {
    let (kind, role) = (people::kind(asked.kind), people::role(asked.role));
    let made = app.service.principal_create(&ctx, kind, &asked.name, role);
    let view = people::principal(made.await?);
    Ok((StatusCode::CREATED, Answer(view)))
}

/// Lists principals of the caller's tenant, by id. For admins.
#[utoipa::path(get, path = routes::PRINCIPALS, tag = "people", operation_id = "principal_list",
    params(PeopleListQuery),
    responses((status = 200, description = "A page", body = PrincipalList),
              (status = 403, description = "Not for who asks", body = ErrorBody)))]
pub(crate) async fn principal_list(
    State(app): State<App>,
    User(ctx): User,
    Query(query): Query<PeopleListQuery>,
) -> Result<Answer<PrincipalList>, Error> {
    let limit = from_wire::page_limit(query.limit)?;
    let after = query.after.as_deref();
    let page = app.service.principal_list(&ctx, after, limit);
    Ok(Answer(people::principals(page.await?)))
}

/// Gives a principal another role, for all its keys, within a second. For admins.
#[utoipa::path(put, path = routes::PRINCIPAL, tag = "people", operation_id = "principal_put",
    params(("name" = String, Path, description = "The principal, such as `user:alice`")),
    request_body = PrincipalPut,
    responses((status = 200, description = "What it is now", body = PrincipalView),
              (status = 400, description = "Nothing was changed", body = ErrorBody),
              (status = 403, description = "Not for who asks", body = ErrorBody),
              (status = 404, description = "No such principal", body = ErrorBody),
              (status = 409, description = "It is the last admin", body = ErrorBody)))]
pub(crate) async fn principal_put(
    State(app): State<App>,
    User(ctx): User,
    NamedOf(named): NamedOf,
    Json(asked): Json<PrincipalPut>,
) -> Result<Answer<PrincipalView>, Error> {
    let role = people::role(asked.role);
    let row = app.service.principal_set(&ctx, &named, role).await?;
    Ok(Answer(people::principal(row)))
}

/// Sends a principal away: its keys are taken back; what it has made stays. For admins.
#[utoipa::path(delete, path = routes::PRINCIPAL, tag = "people", operation_id = "principal_remove",
    params(("name" = String, Path, description = "The principal, such as `user:alice`")),
    responses((status = 200, description = "What it was", body = PrincipalView),
              (status = 403, description = "Not for who asks", body = ErrorBody),
              (status = 404, description = "No such principal", body = ErrorBody)))]
pub(crate) async fn principal_remove(
    State(app): State<App>,
    User(ctx): User,
    NamedOf(named): NamedOf,
) -> Result<Answer<PrincipalView>, Error> {
    let row = app.service.principal_remove(&ctx, &named).await?;
    Ok(Answer(people::principal(row)))
}

/// Makes a key for a principal. Its text is told this once. For admins.
#[utoipa::path(post, path = routes::KEYS, tag = "people", operation_id = "key_create",
    request_body = KeyCreate,
    responses((status = 201, description = "The key", body = KeyMade),
              (status = 400, description = "Nothing was made", body = ErrorBody),
              (status = 403, description = "Not for who asks", body = ErrorBody),
              (status = 404, description = "No such principal", body = ErrorBody),
              (status = 429, description = "There are too many", body = ErrorBody)))]
pub(crate) async fn key_create(
    State(app): State<App>,
    User(ctx): User,
    Json(asked): Json<KeyCreate>,
) -> Result<(StatusCode, Answer<KeyMade>), Error> {
    let (row, text) = app.service.key_create(&ctx, people::new_key(asked)).await?;
    Ok((StatusCode::CREATED, Answer(people::key_made(row, text))))
}

/// Lists keys of the caller's tenant, in the order in which they were made. For admins.
#[utoipa::path(get, path = routes::KEYS, tag = "people", operation_id = "key_list",
    params(PeopleListQuery),
    responses((status = 200, description = "A page", body = KeyList),
              (status = 403, description = "Not for who asks", body = ErrorBody)))]
pub(crate) async fn key_list(
    State(app): State<App>,
    User(ctx): User,
    Query(query): Query<PeopleListQuery>,
) -> Result<Answer<KeyList>, Error> {
    let limit = from_wire::page_limit(query.limit)?;
    let page = app.service.key_list(&ctx, query.after.as_deref(), limit);
    Ok(Answer(people::keys(page.await?)))
}

/// Takes a key back. For admins.
#[utoipa::path(delete, path = routes::KEY, tag = "people", operation_id = "key_revoke",
    params(("id" = String, Path, description = "The key's id")),
    responses((status = 200, description = "What it was", body = KeyView),
              (status = 403, description = "Not for who asks", body = ErrorBody),
              (status = 404, description = "No such key", body = ErrorBody)))]
pub(crate) async fn key_revoke(
    State(app): State<App>,
    User(ctx): User,
    KeyOf(id): KeyOf,
) -> Result<Answer<KeyView>, Error> {
    let row = app.service.key_revoke(&ctx, &id).await?;
    Ok(Answer(people::key(row)))
}

/// Who is behind the credential of this request, what they may, and until when. For everybody but nodes.
#[utoipa::path(get, path = routes::ME, tag = "people", operation_id = "me",
    responses((status = 200, description = "Who", body = Me),
              (status = 403, description = "Not for who asks", body = ErrorBody)))]
pub(crate) async fn me(Caller(who): Caller) -> Answer<Me> {
    Answer(people::me(who))
}

/// With what the command line gets a token for this server: providers of identities. Needs no credential, and says
/// nothing that would need one.
#[utoipa::path(get, path = routes::LOGIN, tag = "people", operation_id = "login_info", security(()),
    responses((status = 200, description = "The providers; none where nobody logs in", body = LoginInfo)))]
pub(crate) async fn login(State(app): State<App>) -> Answer<LoginInfo> {
    Answer(people::login(app.service.logins()))
}
