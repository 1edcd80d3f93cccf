//! An entry of `spec.auth.jwt` as it is written, checked whole.

use super::issuer::{Issuer, Place};
use crate::config::JwtBounds;
use crate::crd::auth::{JwtAuthenticator, MOST_OF_ISSUER};
use crate::tls;

/// Before users and groups where no prefix is written.
const PREFIX: &str = "oidc:";
/// Where an issuer's configuration is, below its URL.
const WELL_KNOWN: &str = "/.well-known/openid-configuration";
const LONGEST_AUTHORITY: usize = 32 << 10;
const LONGEST: usize = 1024;
const NO_CEL: &str = "CEL is not evaluated here; name a claim";

/// What is wrong, as `field: sentence`, if it cannot be in force.
pub(super) fn issuer(entry: &JwtAuthenticator, bounds: &JwtBounds) -> Result<Issuer, String> {
    let (issuer, mappings) = (&entry.issuer, &entry.claim_mappings);
    let discovery = discovery(entry, bounds)?;
    if issuer.certificate_authority.len() > LONGEST_AUTHORITY {
        return Err("issuer.certificateAuthority: longer than 32 KiB".to_owned());
    }
    if !issuer.certificate_authority.is_empty() {
        tls::client_config(issuer.certificate_authority.as_bytes(), None)
            .map_err(|error| format!("issuer.certificateAuthority: {}", error.message()))?;
    }
    bounded("issuer.audiences", &issuer.audiences)?;
    if issuer.audiences.is_empty() {
        return Err(
            "issuer.audiences: name one, mostly the client id: else tokens for anybody would be accepted".to_owned()
        );
    }
    if !matches!(issuer.audience_match_policy.as_str(), "" | "MatchAny") {
        return Err("issuer.audienceMatchPolicy: only MatchAny is known".to_owned());
    }
    if !entry.user_validation_rules.is_empty() {
        return Err(format!("userValidationRules: {NO_CEL} in claimValidationRules instead"));
    }
    for (field, expression) in [
        ("username", &mappings.username.expression),
        ("groups", &mappings.groups.expression),
        ("uid", &mappings.uid.expression),
    ] {
        if !expression.is_empty() {
            return Err(format!("claimMappings.{field}.expression: {NO_CEL}"));
        }
    }
    let prefixed = |of: &crate::crd::auth::PrefixedClaim| {
        (of.claim.clone(), of.prefix.clone().unwrap_or_else(|| PREFIX.to_owned()))
    };
    if mappings.username.claim.is_empty() {
        return Err("claimMappings.username.claim: name one, such as sub or email".to_owned());
    }
    if mappings.groups.claim.is_empty() && mappings.groups.prefix.as_ref().is_some_and(|prefix| !prefix.is_empty()) {
        return Err("claimMappings.groups.claim: there is a prefix and no claim".to_owned());
    }
    let named = |claim: &str| (!claim.is_empty()).then(|| claim.to_owned());
    Ok(Issuer {
        url: issuer.url.clone(),
        discovery,
        authority: named(&issuer.certificate_authority),
        bounds: bounds.clone(),
        audiences: issuer.audiences.clone(),
        rules: rules(entry)?,
        username: prefixed(&mappings.username),
        groups: named(&mappings.groups.claim).map(|_| prefixed(&mappings.groups)),
        uid: named(&mappings.uid.claim),
        extra: extra(entry)?,
    })
}

fn discovery(entry: &JwtAuthenticator, bounds: &JwtBounds) -> Result<Place, String> {
    let issuer = &entry.issuer;
    let not = |field: &str| format!("issuer.{field}: an https URL is needed, without user, query and fragment");
    if issuer.url.len() > LONGEST {
        return Err("issuer.url: too long".to_owned());
    }
    let own = Place::parse(&issuer.url).ok_or_else(|| not("url"))?;
    let place = match issuer.discovery_url.as_str() {
        "" => Place { path: format!("{}{WELL_KNOWN}", own.path.trim_end_matches('/')), ..own },
        url if url == issuer.url => return Err("issuer.discoveryURL: must be another one than url".to_owned()),
        url => Place::parse(url)
            .filter(|place| url.len() <= LONGEST && !place.path.is_empty())
            .ok_or_else(|| not("discoveryURL"))?,
    };
    if bounds.allows(&place.host, place.port) {
        return Ok(place);
    }
    let port = if place.port == 443 { String::new() } else { format!(":{}", place.port) };
    Err(format!(
        "issuer.url: {}{port} is not among the issuers that the admin of the host cluster allows (auth.jwt.allowedIssuers)",
        place.host
    ))
}

fn rules(entry: &JwtAuthenticator) -> Result<Vec<(String, String)>, String> {
    bounded("claimValidationRules", &entry.claim_validation_rules)?;
    let rule = |(at, rule): (usize, &crate::crd::auth::ClaimValidationRule)| {
        if !rule.expression.is_empty() || !rule.message.is_empty() {
            return Err(format!("claimValidationRules[{at}].expression: {NO_CEL} and its requiredValue"));
        }
        if rule.claim.is_empty() {
            return Err(format!("claimValidationRules[{at}].claim: name one"));
        }
        Ok((rule.claim.clone(), rule.required_value.clone()))
    };
    entry.claim_validation_rules.iter().enumerate().map(rule).collect()
}

fn extra(entry: &JwtAuthenticator) -> Result<Vec<(String, String)>, String> {
    let extra = &entry.claim_mappings.extra;
    bounded("claimMappings.extra", extra)?;
    let one = |(at, mapping): (usize, &crate::crd::auth::ExtraMapping)| {
        let fault = |what: &str| Err(format!("claimMappings.extra[{at}].{what}"));
        let key = &mapping.key;
        let is_known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._/".contains(&b);
        let domain = key.split_once('/').filter(|(domain, path)| domain.contains('.') && !path.is_empty());
        let Some((domain, _)) = domain.filter(|_| key.len() <= 256 && key.bytes().all(is_known)) else {
            return fault("key: a domain and a path in lower case are needed, such as example.com/tenant");
        };
        let is_own = |own: &str| domain == own || domain.ends_with(&format!(".{own}"));
        if ["kubernetes.io", "k8s.io", "portico.dev"].into_iter().any(is_own) {
            return fault("key: its domain is Kubernetes' or Portico's own");
        }
        if extra.iter().take(at).any(|other| other.key == *key) {
            return fault("key: it is there twice");
        }
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        match mapping.value_expression.strip_prefix("claims.") {
            Some(claim) if !claim.is_empty() && claim.bytes().all(is_name) => Ok((key.clone(), claim.to_owned())),
            _ => fault("valueExpression: only claims.NAME is understood, no other CEL"),
        }
    };
    extra.iter().enumerate().map(one).collect()
}

fn bounded<T>(field: &str, list: &[T]) -> Result<(), String> {
    let is_short = list.len() <= MOST_OF_ISSUER;
    is_short.then_some(()).ok_or_else(|| format!("{field}: more than {MOST_OF_ISSUER}"))
}
