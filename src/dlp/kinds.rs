//! The built-in types of data, their names and default actions.

use super::action::Action;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $action:ident, $class:ident;)*) => {
        /// A built-in type of data.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u16)]
        pub(super) enum Kind { $($(#[$doc])* $variant,)* }

        impl Kind {
            /// Every kind, in the order of its number.
            pub(super) const ALL: &'static [Kind] = &[$(Kind::$variant,)*];

            /// The name in findings and in the configuration.
            pub(super) fn name(self) -> &'static str {
                match self { $(Kind::$variant => $name,)* }
            }

            /// What is done when nothing else is configured.
            pub(super) fn default_action(self) -> Action {
                match self { $(Kind::$variant => Action::$action,)* }
            }

            /// How much of the verdict comes from the data itself rather than from a name next to it.
            pub(super) fn class(self) -> Class {
                match self { $(Kind::$variant => Class::$class,)* }
            }
        }
    };
}

/// How a kind is recognised. Of two findings on the same characters the later class is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// By the name it stands behind.
    Named,
    /// By its shape.
    Shaped,
    /// By a prefix, a checksum or a structure nothing else has.
    Certain,
}

kinds! {
    /// A US social security number.
    Ssn = "ssn", Redact, Certain;
    /// An e-mail address.
    Email = "email", Alert, Shaped;
    /// A telephone number.
    Phone = "phone", Alert, Named;
    /// A US street address.
    Address = "address", Alert, Shaped;
    /// A diagnosis code.
    Icd10 = "icd10", Alert, Named;
    /// A medical record number.
    Mrn = "mrn", Block, Shaped;
    /// The number of a health insurance.
    HealthInsurance = "health_insurance", Block, Shaped;
    /// A payment card number.
    CreditCard = "credit_card", Block, Certain;
    /// A card verification value.
    Cvv = "cvv", Block, Shaped;
    /// A key behind a name such as `api_key`.
    ApiKey = "api_key", Block, Named;
    /// An AWS access key id or secret key.
    AwsKey = "aws_key", Block, Certain;
    /// A private key in PEM, OpenSSH, PGP, PuTTY or age form.
    PrivateKey = "private_key", Block, Certain;
    /// A JSON web token.
    Jwt = "jwt", Block, Certain;
    /// A password behind its name, or in a URL.
    Password = "password", Block, Named;
    /// An international bank account number.
    Iban = "iban", Block, Certain;
    /// A value behind a name such as `client_secret`.
    Secret = "secret", Block, Named;
    /// A value behind a name such as `access_token`, or an `Authorization` header.
    AuthToken = "auth_token", Block, Named;
    /// A random-looking value behind a name that hints at a secret.
    HighEntropySecret = "high_entropy_secret", Block, Named;
    /// A GitHub token.
    GithubToken = "github_token", Block, Certain;
    /// A GitLab token.
    GitlabToken = "gitlab_token", Block, Certain;
    /// A Slack token or webhook.
    SlackToken = "slack_token", Block, Certain;
    /// A Stripe key.
    StripeKey = "stripe_key", Block, Certain;
    /// A Google API key, OAuth secret or access token.
    GoogleApiKey = "google_api_key", Block, Certain;
    /// An Azure storage, service bus or client secret.
    AzureKey = "azure_key", Block, Certain;
    /// An npm token.
    NpmToken = "npm_token", Block, Certain;
    /// A PyPI token.
    PypiToken = "pypi_token", Block, Certain;
    /// An OpenAI key.
    OpenaiKey = "openai_key", Block, Certain;
    /// An Anthropic key.
    AnthropicKey = "anthropic_key", Block, Certain;
    /// A SendGrid key.
    SendgridKey = "sendgrid_key", Block, Certain;
    /// A Twilio API key.
    TwilioKey = "twilio_key", Block, Certain;
    /// A Hugging Face token.
    HuggingfaceToken = "huggingface_token", Block, Certain;
    /// A token of another well-known service, told by its prefix.
    ServiceToken = "service_token", Block, Certain;
}

impl Kind {
    /// The number of the rule for what has the shape of this kind and nothing more.
    pub(super) fn possible(self) -> u16 {
        (Self::ALL.len() + self as usize) as u16
    }

    /// What is done about what has the shape of this kind and nothing more: nothing that changes a message, or stops one, but where
    /// somebody wants social security numbers stopped.
    pub(super) fn possible_action(self, action: Action) -> Action {
        if self == Self::Ssn && action == Action::Block { action } else { action.min(Action::Alert) }
    }

    /// The kind of this name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// True for numbers whose digits alone identify them, however they are grouped.
    pub(super) fn is_digits(self) -> bool {
        matches!(self, Self::Ssn | Self::CreditCard | Self::Phone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_consistent() {
        for (number, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, number);
            assert_eq!(Kind::from_name(kind.name()), Some(*kind));
        }
        assert_eq!(Kind::from_name("nonsense"), None);
    }

    #[test]
    fn only_personal_data_is_let_through() {
        for kind in Kind::ALL {
            let expected = match kind.name() {
                "ssn" => Action::Redact,
                "email" | "phone" | "address" | "icd10" => Action::Alert,
                _ => Action::Block,
            };
            assert_eq!(kind.default_action(), expected, "{}", kind.name());
        }
    }
}
