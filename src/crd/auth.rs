//! `spec.auth` of a VirtualCluster: who may call. `jwt` has the fields of Kubernetes' structured `AuthenticationConfiguration`
//! (`apiserver.config.k8s.io/v1`, KEP-3331), so that such a file's entries can stand here as they are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most issuers of one virtual cluster.
pub const MOST_ISSUERS: usize = 8;
/// Of the lists of one of them.
pub const MOST_OF_ISSUER: usize = 16;

/// Authentication.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Auth {
    /// Whether callers without credentials reach the backend as `system:anonymous`.
    pub anonymous: bool,
    /// Issuers of tokens (OIDC) by which people and programs may call, as far as the admin's `auth.jwt.allowedIssuers` lists them. Judged by
    /// the gateway, so a change is in force at once and restarts nothing.
    #[schemars(length(max = MOST_ISSUERS))]
    pub jwt: Vec<JwtAuthenticator>,
}

/// One issuer, and what its tokens say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JwtAuthenticator {
    /// Whose tokens.
    pub issuer: JwtIssuer,
    /// What a token must say beside.
    #[schemars(length(max = MOST_OF_ISSUER))]
    pub claim_validation_rules: Vec<ClaimValidationRule>,
    /// Who somebody is by his token.
    pub claim_mappings: ClaimMappings,
    /// CEL is not evaluated here: an entry with such rules is refused.
    #[schemars(length(max = MOST_OF_ISSUER))]
    pub user_validation_rules: Vec<UserValidationRule>,
}

/// An issuer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JwtIssuer {
    /// What its tokens have as `iss`: `https`, without query or fragment.
    #[schemars(length(max = 512))]
    pub url: String,
    /// Where its configuration is, if not at `url` + `/.well-known/openid-configuration`.
    #[serde(rename = "discoveryURL")]
    #[schemars(length(max = 512))]
    pub discovery_url: String,
    /// PEM of the CAs that sign its certificate; those of the system when it is empty.
    #[schemars(length(max = 32768))]
    pub certificate_authority: String,
    /// A token must be for one of these: mostly the client id.
    #[schemars(length(max = MOST_OF_ISSUER), inner(length(max = 256)))]
    pub audiences: Vec<String>,
    /// `MatchAny`, or nothing, which is the same.
    #[schemars(length(max = 32))]
    pub audience_match_policy: String,
}

/// A claim that a token must have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimValidationRule {
    /// Its name.
    #[schemars(length(max = 256))]
    pub claim: String,
    /// Its value, a string.
    #[schemars(length(max = 1024))]
    pub required_value: String,
    /// CEL: refused.
    #[schemars(length(max = 1024))]
    pub expression: String,
    /// Of an expression.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// A rule about the user: CEL, refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UserValidationRule {
    /// CEL: refused.
    #[schemars(length(max = 1024))]
    pub expression: String,
    /// Of the expression.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// Who somebody is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimMappings {
    /// His name. `email` counts only where `email_verified`, if the token says that, is true.
    pub username: PrefixedClaim,
    /// His groups: a string or a list of strings. None where no claim is named.
    pub groups: PrefixedClaim,
    /// His uid.
    pub uid: ClaimOrExpression,
    /// Further attributes.
    #[schemars(length(max = MOST_OF_ISSUER))]
    pub extra: Vec<ExtraMapping>,
}

/// A claim, and what is written before its value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PrefixedClaim {
    /// Its name.
    #[schemars(length(max = 256))]
    pub claim: String,
    /// `oidc:` when it is left out, so that nobody is taken for another authenticator's user; `""` for none at all.
    #[schemars(length(max = 256))]
    pub prefix: Option<String>,
    /// CEL: refused.
    #[schemars(length(max = 1024))]
    pub expression: String,
}

/// A claim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimOrExpression {
    /// Its name.
    #[schemars(length(max = 256))]
    pub claim: String,
    /// CEL: refused.
    #[schemars(length(max = 1024))]
    pub expression: String,
}

/// A further attribute.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtraMapping {
    /// Its key: a domain, a slash and a path, in lower case, as `example.com/tenant`.
    #[schemars(length(max = 256))]
    pub key: String,
    /// `claims.NAME`, whose value is a string or a list of strings. No other CEL.
    #[schemars(length(max = 256))]
    pub value_expression: String,
}
