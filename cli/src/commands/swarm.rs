//! `swarm`: keys and invites.

use std::path::Path;
use std::time::{Duration, SystemTime};

use bacnode_bootstrap::invite::Invite;
use bacnode_node::identity::{
    KeyError, PreSharedKey, load_swarm_key, new_swarm_key, swarm_key_bytes, write_swarm_key, write_voucher,
};
use bacnode_protocol::api::{Invitation, Member, Members, NewInvitation, NodeIdentity};
use bacnode_protocol::id::NodeId;
use bacnode_protocol::limits::ADDRESSES_MAX;
use bacnode_protocol::time::UnixMillis;
use bacnode_protocol::wire::codec;
use bacnode_protocol::wire::member::Signed;
use multiaddr::{Multiaddr, Protocol};
use reqwest::Method;
use serde::Serialize;

use crate::args::{Format, Swarm};
use crate::client::{Client, segment};
use crate::error::{Failure, Result};
use crate::output;
use crate::settings::{self, data_dir, peer_address, swarm_key};

pub(super) async fn run(client: impl Fn() -> Result<Client>, format: Format, command: Swarm) -> Result<()> {
    match command {
        Swarm::Keygen { file } => {
            let key = new_swarm_key().map_err(|error| Failure::failed(format!("cannot make a key: {error}")))?;
            write_swarm_key(&file, key).map_err(|error| unwritten(&error))?;
            output::line(&key.fingerprint().to_string());
            let file = file.display();
            output::note(&format!("{} {file}; `bacnode serve --swarm-key {file}` uses it", output::green("made")));
            Ok(())
        }
        Swarm::Invite { days, member_days, once, address, data_dir: dir, swarm_key: key } => {
            let key = swarm_key(&data_dir(dir.as_ref())?, key.as_deref())?;
            invite(&client()?, NewInvitation { days, member_days, once }, &address, key).await
        }
        Swarm::Members => members(&client()?, format).await,
        Swarm::Revoke { member } => {
            let path = format!("network/members/{}", segment(&member));
            let client = client()?;
            let out: Member = client.json(client.request(Method::DELETE, &path)).await?;
            output::note(&format!("{} {}: nobody speaks to it any more", output::red("put out"), named(&out)));
            Ok(())
        }
        Swarm::Info { data_dir: dir, swarm_key: key } => {
            let key = swarm_key(&data_dir(dir.as_ref())?, key.as_deref())?;
            info(&client()?, format, key).await
        }
    }
}

fn unwritten(error: &KeyError) -> Failure {
    match error {
        KeyError::Io { path, source } if source.kind() == std::io::ErrorKind::AlreadyExists => {
            Failure::usage(format!("{} is there already", path.display()))
                .hint("whoever has the old key gets in with that only: keep it, or name another file")
        }
        KeyError::Io { path, source } => Failure::failed(format!("cannot write {}: {source}", path.display())),
        other => Failure::failed(other.to_string()),
    }
}

/// Its label if it has one, and its id.
fn named(member: &Member) -> String {
    if member.name.is_empty() {
        member.peer_id.clone()
    } else {
        format!("{} ({})", output::plain(&member.name), member.peer_id)
    }
}

async fn members(client: &Client, format: Format) -> Result<()> {
    let members: Members = client.get("network/members").await?;
    if members.founder.is_empty() {
        return Err(Failure::failed("this swarm has no founder: whoever has its key is a member")
            .hint("`serve --founder self` makes a node the founder of a new one"));
    }
    let rows: Vec<Vec<String>> = members
        .members
        .iter()
        .map(|member| {
            let is = if member.revoked { "put out" } else { "member" };
            let day = |time: &str| time.chars().take(10).collect();
            vec![member.name.clone(), member.peer_id.clone(), is.to_owned(), day(&member.since), day(&member.ends)]
        })
        .collect();
    if format == Format::Table && !members.is_founder {
        output::note(&format!("founded by {}, which alone knows all members", members.founder));
        if let Some(ends) = &members.ends {
            output::note(&format!("this node is a member until {ends}"));
        }
        return Ok(());
    }
    output::rows(format, &members, &["name", "id", "is", "since", "until"], &rows)
}

/// The founder's word for whoever comes with an invite; nothing where it takes no more than the key.
async fn voucher(client: &Client, wanted: NewInvitation) -> Result<Option<(NodeId, Signed)>> {
    let members: Members = client.get("network/members").await?;
    if members.founder.is_empty() {
        if !wanted.once {
            return Ok(None);
        }
        return Err(Failure::usage("--once: this swarm has no founder, who alone could see to it")
            .hint("`serve --founder self` makes a node the founder of a new swarm"));
    }
    let request = client.request(Method::POST, "network/members").json(&wanted);
    let invitation: Invitation = client.json(request).await?;
    let bytes = hex::decode(&invitation.voucher).ok();
    let signed = bytes.and_then(|bytes| codec::decode(&bytes, bytes.len()).ok());
    let founder = invitation.founder.parse().ok();
    founder.zip(signed).map(Some).ok_or_else(|| Failure::failed("the node answers with no invitation"))
}

async fn invite(client: &Client, wanted: NewInvitation, named: &[String], key: Option<PreSharedKey>) -> Result<()> {
    let days = wanted.days;
    let node: NodeIdentity = client.get("network/identity").await?;
    let mut addresses = named.iter().map(|text| peer_address("address", text)).collect::<Result<Vec<_>>>()?;
    if addresses.is_empty() {
        addresses = node.addresses.iter().filter_map(|text| text.parse().ok()).collect();
        // The key guards TCP only; who joins from elsewhere cannot use what is this machine's own.
        addresses.retain(|address| key.is_none() || !address.iter().any(|part| part == Protocol::QuicV1));
        addresses.sort_by_key(is_loopback);
        if addresses.iter().any(|address| !is_loopback(address)) {
            addresses.retain(|address| !is_loopback(address));
        }
    }
    addresses.truncate(ADDRESSES_MAX);
    if addresses.iter().all(is_loopback) {
        output::note("warning: this node listens on loopback only: nobody can join from another machine");
    }
    let ends = SystemTime::now() + Duration::from_secs(days * 86_400);
    let founder = voucher(client, wanted).await?;
    let key = key.map(swarm_key_bytes);
    let invite = Invite { network: node.network, key, addresses, ends: millis(ends), founder };
    output::line(&invite.to_string());
    output::note(&match invite.key {
        Some(_) if invite.founder.is_some() => {
            let whom = if wanted.once { "one node in" } else { "whoever has it in" };
            let member = format!("a member for {}", span(wanted.member_days));
            format!("it lets {whom}, as {member}; it is taken for {}", span(days))
        }
        Some(_) => format!("the key is in it: whoever has the line gets in; it is taken for {}", span(days)),
        None => format!("it is taken for {}", span(days)),
    });
    Ok(())
}

fn span(days: u64) -> String {
    if days == 1 { "a day".into() } else { format!("{days} days") }
}

fn is_loopback(address: &Multiaddr) -> bool {
    address.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_loopback(),
        Protocol::Ip6(ip) => ip.is_loopback(),
        _ => false,
    })
}

fn millis(time: SystemTime) -> UnixMillis {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

async fn info(client: &Client, format: Format, key: Option<PreSharedKey>) -> Result<()> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Info {
        network: String,
        fingerprint: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        founder: Option<String>,
        addresses: Vec<String>,
    }
    let node: NodeIdentity = client.get("network/identity").await?;
    let fingerprint = key.map(|key| key.fingerprint().to_string());
    let founder = client.get::<Members>("network/members").await?.founder;
    let founder = (!founder.is_empty()).then_some(founder);
    let info = Info { network: node.network, fingerprint, founder, addresses: node.addresses };
    if format != Format::Table {
        return output::structured(format, &info);
    }
    output::line(&format!("network      {}", output::plain(&info.network)));
    output::line(&format!(
        "fingerprint  {}",
        info.fingerprint.as_deref().unwrap_or("none: whoever knows an address joins")
    ));
    if let Some(founder) = &info.founder {
        output::line(&format!("founded by   {}", output::plain(founder)));
    }
    for address in &info.addresses {
        output::line(&format!("reached at   {}", output::plain(address)));
    }
    Ok(())
}

/// Sets a data folder up as an invite says, so that it need not be said again.
///
/// # Errors
/// If the invite is none, or is over, or the folder is of another network.
pub(super) fn join(dir: &Path, line: &str) -> Result<()> {
    let invite: Invite = line.parse().map_err(|error| {
        Failure::usage(format!("--join: {error}")).hint("copy the whole line that `bacnode swarm invite` printed")
    })?;
    if invite.ends < millis(SystemTime::now()) {
        return Err(Failure::usage("--join: the invite is over").hint("ask for a new one, or set this machine's clock"));
    }
    if let Some(other) = settings::network(dir)?.filter(|other| *other != invite.network) {
        let message = format!("{} is of the network `{other}`, the invite of `{}`", dir.display(), invite.network);
        return Err(Failure::usage(message).hint("name another data folder with --data-dir"));
    }
    let unusable = |error: std::io::Error| Failure::failed(format!("cannot write to {}: {error}", dir.display()));
    std::fs::create_dir_all(dir).map_err(unusable)?;
    if let Some(bytes) = invite.key {
        let path = dir.join("swarm.key");
        keep_key(&path, PreSharedKey::new(bytes))?;
        settings::set(dir, "swarm-key", &[path.display().to_string()])?;
    }
    if let Some((founder, voucher)) = &invite.founder {
        write_voucher(dir, voucher).map_err(|error| unwritten(&error))?;
        settings::set(dir, "founder", &[founder.to_string()])?;
    }
    settings::set(dir, "network", std::slice::from_ref(&invite.network))?;
    let addresses: Vec<String> = invite.addresses.iter().map(ToString::to_string).collect();
    settings::set(dir, "bootstrap", &addresses)?;
    Ok(())
}

fn keep_key(path: &Path, key: PreSharedKey) -> Result<()> {
    if !path.exists() {
        return write_swarm_key(path, key).map_err(|error| unwritten(&error));
    }
    let known = load_swarm_key(path).map_err(|error| Failure::usage(error.to_string()))?;
    if known.fingerprint() == key.fingerprint() {
        return Ok(());
    }
    Err(Failure::usage(format!("{} is another key than the invite's", path.display()))
        .hint("name another data folder with --data-dir, or move the key away"))
}
