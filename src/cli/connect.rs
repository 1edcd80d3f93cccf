//! `portico connect`: a kubeconfig for a virtual cluster, from the Secret that Portico keeps beside it: as its admin, or with a
//! short credential that is made for it.
//!
//! Which server it names, first that holds: `--server`; the gateway's public address in the Secret; a port that this
//! command forwards itself, to the gateway or, without rights there, to the control plane's own pod. A cluster of the
//! sidecar form (`portico syncer`) has no VirtualCluster: its Secret alone tells, and its own pod is the gateway.

mod account;
mod certificate;
mod credential;
mod file;
mod forward;
mod kubeconfig;
mod life;
mod login;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams};
use serde_json::json;

use super::access::{PorticoArgs, is_code};
use super::cluster;
use super::failure::{Failure, Outcome};
use super::host::{Host, HostArgs};
use super::output;
use crate::crd::{VirtualCluster, VirtualClusterStatus};
use crate::names::keys;
use crate::tls::issued;
use credential::{CredentialArgs, Wanted};
use forward::Forward;
use kubeconfig::Access;

/// Arguments of `portico connect`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Virtual cluster.
    name: String,
    /// URL of the gateway, such as `https://203.0.113.7:443` or `https://portico.example.com/clusters/NS/NAME`.
    #[arg(long, value_name = "URL", value_parser = https_url)]
    server: Option<String>,
    /// Where to write.
    #[arg(long, value_name = "FILE", default_value = "kubeconfig.yaml")]
    kube_config: PathBuf,
    /// Add a context `portico_NAME_NAMESPACE` to your own kubeconfig and make it the current one.
    #[arg(long, conflicts_with_all = ["kube_config", "print"])]
    update_current: bool,
    /// Print the kubeconfig.
    #[arg(long, conflicts_with_all = ["kube_config", "command"])]
    print: bool,
    /// Local port when this command forwards one; default: a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    local_port: u16,
    #[command(flatten)]
    credential: CredentialArgs,
    #[command(flatten)]
    portico: PorticoArgs,
    /// Run this with KUBECONFIG set and end with its exit code.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) async fn run(host_args: &HostArgs, args: Args) -> Outcome<u8> {
    let wanted = args.credential.wanted()?;
    let host = host_args.connect().await?;
    let status = status(&host, &args.name).await?;
    let (access, signed) = match (read_secret(&host, &args.name, status).await, &wanted) {
        // Whoever may not read the admin's credential may still have one of his own: the answer tells the ways, too.
        (Err(failure), Wanted::User(user)) if failure.is_forbidden() => {
            let signed = certificate::signed(&host, &args.name, user).await?;
            (Access::parse(&signed.kubeconfig).map_err(|_| failure)?, Some(signed))
        }
        (access, _) => (access?, None),
    };
    let (access, forward) = choose_server(&host, &args, access).await?;
    let (access, life) = credential(&host, &args, &wanted, (access, signed), forward.as_ref()).await?;
    let context = format!("portico_{}_{}", args.name, host.namespace);
    let document = access.kubeconfig(&context);
    if !args.command.is_empty() {
        return run_command(&args.command, &document, forward).await;
    }
    deliver(&args, &host.namespace, &context, &document, forward.is_some())?;
    if let Some(life) = life {
        output::note(&life);
    }
    if let Some(forward) = forward {
        output::note(&format!("forwarding {} to {}; Ctrl-C ends it", forward.address(), forward.target()));
        forward.run_until(interrupted()).await?;
    }
    Ok(0)
}

/// The status, when the user may read it: it explains a missing Secret. `Err` inside: there is no VirtualCluster.
async fn status(host: &Host, name: &str) -> Outcome<Result<VirtualClusterStatus, Failure>> {
    let api: Api<VirtualCluster> = Api::namespaced(host.client.clone(), &host.namespace);
    match api.get(name).await {
        Ok(found) => Ok(Ok(found.status.unwrap_or_default())),
        Err(error) if is_code(&error, 403) => Ok(Ok(VirtualClusterStatus::default())),
        Err(error) => {
            let failure = Failure::api(&format!("read virtual cluster {name}"), &error);
            match () {
                () if failure.is_not_found() => Ok(Err(cluster::missing(&host.namespace, name))),
                () if is_code(&error, 404) => Ok(Err(Failure::not_found(
                    format!(
                        "there is no virtual cluster {name} in namespace {}: neither Secret vc-{name} nor {name} is a \
                         kubeconfig, and this host cluster has no VirtualClusters",
                        host.namespace
                    ),
                    "name its namespace with -n; an admin installs VirtualClusters once: docs/operations/install.md",
                ))),
                () => Err(failure),
            }
        }
    }
}

/// The kubeconfig Secret: the one that the status names, else `vc-NAME`, else (sidecar form) one of the cluster's name.
async fn read_secret(host: &Host, name: &str, status: Result<VirtualClusterStatus, Failure>) -> Outcome<Access> {
    let named = status.as_ref().map(|s| s.kubeconfig_secret.clone()).unwrap_or_default();
    let candidates = if named.is_empty() { vec![format!("vc-{name}"), name.to_owned()] } else { vec![named] };
    let api: Api<Secret> = Api::namespaced(host.client.clone(), &host.namespace);
    for secret_name in &candidates {
        let found = api.get_opt(secret_name).await;
        let found = found.map_err(|error| {
            Failure::api(&format!("read Secret {secret_name} in namespace {}", host.namespace), &error)
        })?;
        if let Some(secret) = found.filter(|secret| secret_name != name || is_kubeconfig_secret(secret)) {
            return access(secret, secret_name, &host.namespace);
        }
    }
    // A sidecar's Secret may have any name; its label says whose it is.
    let labelled = ListParams::default().labels(&format!("{}={name}", keys::SIDECAR));
    if let Ok(found) = api.list(&labelled).await
        && let Some(secret) = found.items.into_iter().next()
    {
        let secret_name = secret.metadata.name.clone().unwrap_or_default();
        return access(secret, &secret_name, &host.namespace);
    }
    let status = status?;
    let why = if status.message.is_empty() { String::new() } else { format!(" ({})", status.message) };
    let secret_name = candidates.first().map(String::as_str).unwrap_or_default();
    Err(Failure::not_found(
        format!("Secret {secret_name} is not in namespace {}{why}", host.namespace),
        format!("the cluster may not be ready yet: portico describe {name} -n {}", host.namespace),
    ))
}

/// A Secret of the cluster's name may be anybody's.
fn is_kubeconfig_secret(secret: &Secret) -> bool {
    secret.data.as_ref().is_some_and(|data| data.contains_key("config"))
}

fn access(secret: Secret, name: &str, namespace: &str) -> Outcome<Access> {
    let names = secret.metadata.annotations.unwrap_or_default().remove(keys::CERTIFICATE_NAMES);
    let config = secret.data.and_then(|mut d| d.remove("config")).map(|b| b.0).unwrap_or_default();
    let access = Access::parse(&String::from_utf8_lossy(&config)).map_err(|why| {
        Failure::new(
            format!("Secret {name} in namespace {namespace} holds no kubeconfig: {why}"),
            "delete it and Portico writes it again",
        )
    })?;
    Ok(match names {
        Some(names) => access.of_sidecar(names.split(',').map(str::to_owned).collect()),
        None => access,
    })
}

async fn choose_server(host: &Host, args: &Args, access: Access) -> Outcome<(Access, Option<Forward>)> {
    if let Some(server) = &args.server {
        if access.is_unnamed(server) {
            output::note(&format!(
                "note: {server} is not in the cluster's certificate, so it is verified by the Service's name; for clients \
                 that cannot do that, add the address to the syncer's --tls-san",
            ));
        }
        let found = access.at(server).ok_or_else(|| {
            Failure::new(
                format!("the kubeconfig Secret of {} does not say how to verify {server}", args.name),
                "give the other form of the URL: with the path /clusters/NAMESPACE/NAME, or without",
            )
        })?;
        return Ok((found, None));
    }
    if access.has_public_server() {
        return Ok((access, None));
    }
    if args.print {
        output::note(
            "note: the gateway has no public address; give --server, or run connect without --print, which forwards a port",
        );
        return Ok((access, None));
    }
    let target =
        forward::choose(&host.client, &host.namespace, &args.name, &args.portico.portico_namespace, &access).await?;
    let forward = Forward::bind(args.local_port, target).await?;
    let access = access.forwarded(forward.address().port(), forward.to_gateway());
    if !forward.to_gateway() {
        output::note(
            "note: forwarding to the control plane itself, since you may not reach the gateway's pods: exec, logs, attach and port-forward do not work this way; ask the admin for the gateway's address (--server)",
        );
    }
    Ok((access, Some(forward)))
}

/// Puts the wanted credential in the admin's place, and says how long it lives.
async fn credential(
    host: &Host,
    args: &Args,
    wanted: &Wanted,
    (access, signed): (Access, Option<certificate::Certificate>),
    forward: Option<&Forward>,
) -> Outcome<(Access, Option<String>)> {
    let now = jiff::Timestamp::now();
    match wanted {
        Wanted::Admin => {
            let ends = access.certificate().and_then(|pem| issued::ends(&pem));
            let life = ends.map(|ends| life::note("the admin's certificate in it", ends, None, now));
            Ok((access, life))
        }
        Wanted::Account(account) => {
            let token = token(host, args, account, &access, forward).await?;
            let what = format!("the token of ServiceAccount {} in it", token.account);
            let note = life::note(&what, token.ends, Some(account.life), now);
            Ok((access.with_user(json!({"token": token.text})), Some(note)))
        }
        Wanted::Login(wish) => {
            let (user, note) = login::user(host, &args.name, wish).await?;
            Ok((access.with_user(user), Some(note)))
        }
        Wanted::User(user) => {
            let signed = match signed {
                Some(signed) => signed,
                None => certificate::signed(host, &args.name, user).await?,
            };
            let what = format!("the certificate of user {} in it", user.name);
            let note = life::note(&what, signed.ends, Some(user.life), now);
            let pair = [signed.certificate, signed.key].map(|pem| STANDARD.encode(pem));
            let user = json!({"client-certificate-data": pair[0], "client-key-data": pair[1]});
            Ok((access.with_user(user), Some(note)))
        }
    }
}

/// Asks the virtual cluster, over the way that is written, or one of this moment where that leads nowhere from here.
async fn token(
    host: &Host,
    args: &Args,
    account: &credential::Account,
    access: &Access,
    forward: Option<&Forward>,
) -> Outcome<account::Token> {
    let namespace = access.namespace().unwrap_or("default").to_owned();
    let ask = |access: &Access| {
        let document = access.kubeconfig("admin");
        async move { account::token(&document, &namespace, account).await }
    };
    if let Some(forward) = forward {
        return forward.run_while(ask(access)).await?;
    }
    if args.server.is_some() || access.has_public_server() {
        return ask(access).await;
    }
    let target =
        forward::choose(&host.client, &host.namespace, &args.name, &args.portico.portico_namespace, access).await?;
    let forward = Forward::bind(args.local_port, target).await?;
    let through = access.clone().forwarded(forward.address().port(), forward.to_gateway());
    forward.run_while(ask(&through)).await?
}

fn deliver(args: &Args, namespace: &str, context: &str, document: &serde_json::Value, forwarded: bool) -> Outcome<()> {
    if args.print {
        output::text(&output::yaml(document)?);
        return Ok(());
    }
    if args.update_current {
        let path = file::users_kubeconfig()?;
        file::merge_into(&path, document)?;
        output::line(&format!("context {context} is now the current one in {}", path.display()));
        output::note("next: kubectl get namespaces");
        return Ok(());
    }
    file::write_kubeconfig(&args.kube_config, document)?;
    let shown = absolute(&args.kube_config);
    output::line(&shown.display().to_string());
    let elsewhere = if forwarded { " (in another terminal)" } else { "" };
    output::note(&format!(
        "next{elsewhere}: export KUBECONFIG={}; kubectl get namespaces\nor for one command: portico connect {} -n {namespace} -- kubectl get pods -A",
        shown.display(),
        args.name,
    ));
    Ok(())
}

async fn run_command(command: &[String], document: &serde_json::Value, forward: Option<Forward>) -> Outcome<u8> {
    let file = file::Temporary::write(document)?;
    let Some((program, arguments)) = command.split_first() else { return Ok(0) };
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .env("KUBECONFIG", file.path())
        .stdin(Stdio::inherit())
        .stdout(Stdio::inherit())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|e| Failure::new(format!("{program} cannot be run: {e}"), "is it installed and in PATH?"))?;
    // Ctrl-C reaches the command too; this process stays to clean up after it.
    let ended = async {
        loop {
            tokio::select! {
                status = child.wait() => return status,
                () = interrupted() => {}
            }
        }
    };
    let status = match forward {
        None => ended.await,
        Some(forward) => forward.run_while(ended).await?,
    };
    let status = status.map_err(|e| Failure::new(format!("{program} was lost: {e}"), "run it again"))?;
    Ok(exit_code(status))
}

fn exit_code(status: std::process::ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn https_url(text: &str) -> Result<String, String> {
    let uri: http::Uri = text.parse().map_err(|e| format!("{e}"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("write a URL beginning with https://".to_owned()),
    }
}
