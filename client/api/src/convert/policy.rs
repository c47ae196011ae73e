//! Policies, settlements, claims: how conflicts are treated and tasks are taken.

use super::ids::status;
use super::{ConvertError, required};
use crate::v1;
use zyflow_machine::id::{ClusterTime, Revision};
use zyflow_machine::record::{Claim, Policy, Settled, SettledBy, Settlement, Status, Strategy};

impl From<Strategy> for v1::Strategy {
    fn from(strategy: Strategy) -> Self {
        match strategy {
            Strategy::SpecWins => Self::SpecWins,
            Strategy::RuntimeWins => Self::RuntimeWins,
            Strategy::LastWriteWins => Self::LastWriteWins,
            Strategy::Merge => Self::Merge,
            Strategy::Manual => Self::Manual,
            Strategy::Skip => Self::Skip,
        }
    }
}

fn strategy(value: i32) -> Result<Strategy, ConvertError> {
    match v1::Strategy::try_from(value) {
        Ok(v1::Strategy::SpecWins) => Ok(Strategy::SpecWins),
        Ok(v1::Strategy::RuntimeWins) => Ok(Strategy::RuntimeWins),
        Ok(v1::Strategy::LastWriteWins) => Ok(Strategy::LastWriteWins),
        Ok(v1::Strategy::Merge) => Ok(Strategy::Merge),
        Ok(v1::Strategy::Manual) => Ok(Strategy::Manual),
        Ok(v1::Strategy::Skip) => Ok(Strategy::Skip),
        Ok(v1::Strategy::Unspecified) | Err(_) => Err(ConvertError::UnknownValue { field: "strategy", value }),
    }
}

impl From<SettledBy> for v1::SettledBy {
    fn from(by: SettledBy) -> Self {
        match by {
            SettledBy::Auto => Self::Auto,
            SettledBy::User => Self::User,
            SettledBy::System => Self::System,
        }
    }
}

fn settled_by(value: i32) -> Result<SettledBy, ConvertError> {
    match v1::SettledBy::try_from(value) {
        Ok(v1::SettledBy::Auto) => Ok(SettledBy::Auto),
        Ok(v1::SettledBy::User) => Ok(SettledBy::User),
        Ok(v1::SettledBy::System) => Ok(SettledBy::System),
        Ok(v1::SettledBy::Unspecified) | Err(_) => Err(ConvertError::UnknownValue { field: "settled by", value }),
    }
}

impl From<Settlement> for v1::Settlement {
    fn from(settlement: Settlement) -> Self {
        Self {
            strategy: v1::Strategy::from(settlement.strategy).into(),
            by: v1::SettledBy::from(settlement.by).into(),
            value: settlement.value,
        }
    }
}

impl TryFrom<v1::Settlement> for Settlement {
    type Error = ConvertError;

    fn try_from(settlement: v1::Settlement) -> Result<Self, ConvertError> {
        Ok(Self { strategy: strategy(settlement.strategy)?, by: settled_by(settlement.by)?, value: settlement.value })
    }
}

impl From<Settled> for v1::Settled {
    fn from(settled: Settled) -> Self {
        Self { at: settled.at.0, author: settled.author, settlement: Some(settled.settlement.into()) }
    }
}

impl TryFrom<v1::Settled> for Settled {
    type Error = ConvertError;

    fn try_from(settled: v1::Settled) -> Result<Self, ConvertError> {
        Ok(Self {
            at: Revision(settled.at),
            author: settled.author,
            settlement: required("settled.settlement", settled.settlement)?.try_into()?,
        })
    }
}

impl From<Claim> for v1::Claim {
    fn from(claim: Claim) -> Self {
        Self { holder: claim.holder, until_ms: claim.until.0 }
    }
}

impl From<v1::Claim> for Claim {
    fn from(claim: v1::Claim) -> Self {
        Self { holder: claim.holder, until: ClusterTime(claim.until_ms) }
    }
}

impl From<Policy> for v1::Policy {
    fn from(policy: Policy) -> Self {
        let number = |status: Status| v1::TaskStatus::from(status).into();
        let transitions = policy
            .transitions
            .into_iter()
            .map(|(from, to)| v1::policy::Transitions { from: number(from), to: to.into_iter().map(number).collect() });
        let strategies = policy.strategies.into_iter();
        Self {
            strategy: v1::Strategy::from(policy.strategy).into(),
            strategies: strategies.map(|(field, strategy)| (field, v1::Strategy::from(strategy).into())).collect(),
            transitions: transitions.collect(),
            convention: policy.convention,
            order: policy.order.into_iter().map(number).collect(),
        }
    }
}

impl TryFrom<v1::Policy> for Policy {
    type Error = ConvertError;

    fn try_from(policy: v1::Policy) -> Result<Self, ConvertError> {
        let strategies = policy.strategies.into_iter().map(|(field, value)| Ok((field, strategy(value)?)));
        let transitions = policy.transitions.into_iter().map(|step| {
            Ok((status(step.from)?, step.to.into_iter().map(status).collect::<Result<_, ConvertError>>()?))
        });
        Ok(Self {
            strategy: strategy(policy.strategy)?,
            strategies: strategies.collect::<Result<_, ConvertError>>()?,
            order: policy.order.into_iter().map(status).collect::<Result<_, ConvertError>>()?,
            transitions: transitions.collect::<Result<_, ConvertError>>()?,
            convention: policy.convention,
        })
    }
}
