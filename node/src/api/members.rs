//! Members of a swarm with a founder: whom it has let in, invites, and who is put out.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use bacnode_protocol::api::{Invitation, Member, Members, NewInvitation, rfc3339};
use bacnode_protocol::id::NodeId;
use bacnode_protocol::membership::RevokeError;
use bacnode_protocol::time::UnixMillis;
use bacnode_protocol::wire::codec;
use bacnode_protocol::wire::member::{Certificate, Voucher};

use super::Api;
use super::error::ApiError;
use super::openapi::Errors;
use crate::{clock, network};

const DAY_MS: u64 = 86_400_000;
/// The longest membership, and the longest invite.
const DAYS_MAX: u64 = 3_650;

/// What this node has to do with members, if its swarm has any.
fn members(api: &Api) -> Result<&network::Members, ApiError> {
    api.network.members().ok_or_else(|| {
        ApiError::new(StatusCode::CONFLICT, "Conflict", "this swarm has no founder: whoever has its key is a member")
            .hint("`serve --founder self` makes a node the founder of a new one")
    })
}

fn refused(error: RevokeError, founder: &NodeId) -> ApiError {
    match error {
        RevokeError::NotFounder => ApiError::new(StatusCode::FORBIDDEN, "Forbidden", error.to_string())
            .hint(format!("ask at {founder}, which founded it")),
        RevokeError::NoMember => ApiError::not_found(error.to_string()),
        RevokeError::Full => ApiError::new(StatusCode::CONFLICT, "Conflict", error.to_string()),
    }
}

/// Whom the founder has let in; of others, what they are themselves; nobody in a swarm without a founder.
#[utoipa::path(
    get,
    path = "/members",
    tag = "network",
    operation_id = "listMembers",
    responses((status = 200, body = Members), Errors)
)]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<Members>, ApiError> {
    let Some(own) = api.network.members() else { return Ok(Json(Members::default())) };
    let (founder, is_founder, ends, members) = (own.founder(), own.is_founder(), own.ends(), own.list());
    let view = api.network.view();
    let shown = |(member, revoked): (Certificate, bool)| Member {
        peer_id: member.node.to_string(),
        name: view.label(&member.node),
        since: rfc3339(member.issued),
        ends: rfc3339(member.ends),
        revoked,
    };
    Ok(Json(Members {
        founder: founder.to_string(),
        is_founder,
        ends: ends.map(rfc3339),
        members: members.into_iter().map(shown).collect(),
    }))
}

/// Makes what lets newcomers in, for an invite; the founder only can.
#[utoipa::path(
    post,
    path = "/members",
    tag = "network",
    operation_id = "inviteMember",
    request_body = NewInvitation,
    responses((status = 200, body = Invitation), Errors)
)]
pub(super) async fn invite(State(api): State<Api>, body: Bytes) -> Result<Json<Invitation>, ApiError> {
    let wanted: NewInvitation = super::submit::body(&body)?;
    for (name, days) in [("Days", wanted.days), ("MemberDays", wanted.member_days)] {
        if !(1..=DAYS_MAX).contains(&days) {
            return Err(ApiError::bad(format!("{name}: {days} is not within 1 and {DAYS_MAX}")));
        }
    }
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|_| ApiError::unavailable("the system gives no random numbers"))?;
    let now = clock::unix();
    let ends = UnixMillis(now.0.saturating_add(wanted.days * DAY_MS));
    let voucher = Voucher { id, made: now, ends, once: wanted.once, membership_s: wanted.member_days * DAY_MS / 1_000 };
    let own = members(&api)?;
    let signed = own.invite(&voucher).map_err(|error| refused(error, &own.founder()))?;
    Ok(Json(Invitation {
        founder: own.founder().to_string(),
        voucher: hex::encode(codec::encode(&signed)),
        ends: ends.0,
    }))
}

/// Puts a member out.
#[utoipa::path(
    delete,
    path = "/members/{id}",
    tag = "network",
    operation_id = "revokeMember",
    params(("id" = String, Path, description = "id, the start of one, or name")),
    responses((status = 200, body = Member), Errors)
)]
pub(super) async fn revoke(State(api): State<Api>, Path(text): Path<String>) -> Result<Json<Member>, ApiError> {
    let own = members(&api)?;
    let meant = |(member, _): &(Certificate, bool)| {
        let id = member.node.to_string();
        id == text
            || text.len() >= 4 && member.node.short().starts_with(&text)
            || api.network.view().label(&member.node) == text
    };
    let found: Vec<_> = if own.is_founder() { own.list().into_iter().filter(meant).collect() } else { Vec::new() };
    let node = match found[..] {
        [(member, _)] => member.node,
        [] => text.parse().map_err(|_| {
            if !own.is_founder() {
                return refused(RevokeError::NotFounder, &own.founder());
            }
            ApiError::not_found(format!("no member `{text}` is known")).hint("`bacnode swarm members` lists them")
        })?,
        _ => return Err(ApiError::bad(format!("`{text}` is several members")).hint("write more of its id")),
    };
    let name = api.network.view().label(&node);
    own.revoke(node).await?.map_err(|error| refused(error, &own.founder()))?;
    let member = own.list().into_iter().find(|(member, _)| member.node == node);
    let (member, revoked) = member.ok_or_else(|| ApiError::not_found("it is no member"))?;
    Ok(Json(Member {
        peer_id: node.to_string(),
        name,
        since: rfc3339(member.issued),
        ends: rfc3339(member.ends),
        revoked,
    }))
}
