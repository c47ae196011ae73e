//! `zyflow project policy`: how a project treats conflicts, statuses and marks.

use super::context::Context;
use super::expect::ExpectArgs;
use super::report::{Failure, Output, Report};
use super::resolve;
use super::task_view::strategy_name;
use crate::code::Code;
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use zyflow_checkout::fields::status_of;
use zyflow_machine::command::Body;
use zyflow_machine::record::{Policy, Status, Strategy};
use zyflow_spec::{Convention, State};

/// Shows the policy; with options, changes those parts of it.
#[derive(Debug, Args)]
pub(super) struct PolicyArgs {
    /// The project.
    name: String,
    /// What becomes of conflicts: STRATEGY for all fields, or FIELD=STRATEGY; may be repeated. Strategies are spec-wins, runtime-wins,
    /// last-write-wins, merge, manual and skip.
    #[arg(long = "strategy", value_name = "[FIELD=]STRATEGY")]
    strategies: Vec<String>,
    /// Which statuses may follow one: todo=in-progress,cancelled; may be repeated. `todo=any` lifts it.
    #[arg(long = "allow", value_name = "FROM=TO,..")]
    allow: Vec<String>,
    /// From weakest to strongest: which of two statuses stands where both sides changed it; empty = the usual order.
    #[arg(long, value_name = "STATUS,..")]
    order: Option<String>,
    /// What marks mean, as kiro or kiro,~=blocked; empty = each file's own dialect (docs/dialects.md).
    #[arg(long, value_name = "DIALECT[,MARK=STATUS..]")]
    convention: Option<String>,
    #[command(flatten)]
    expect: ExpectArgs,
}

pub(super) async fn run(context: &Context, args: PolicyArgs) -> Result<Report, Failure> {
    let client = context.client()?;
    let found = resolve::project(&client, context.read(), &args.name).await?;
    let before = found.value.record.policy;
    let after = changed(before.value.clone(), &args)?;
    if after == before.value {
        return Ok(Output::One { item: shown(&after), revision: Some(found.revision) }.into());
    }
    let body = Body::SetPolicy { project: found.value.id, expected: Some(before.at), policy: after.clone() };
    let body = args.expect.wrap(found.value.id, body);
    let (revision, _) = context.propose(&client, body, &format!("the policy of {}", args.name)).await?;
    Ok(Output::One { item: shown(&after), revision: Some(revision) }.into())
}

fn usage(message: String) -> Failure {
    Failure::new(Code::Usage, message)
}

fn changed(mut policy: Policy, args: &PolicyArgs) -> Result<Policy, Failure> {
    for text in &args.strategies {
        match text.split_once('=') {
            Some((field, name)) => drop(policy.strategies.insert(field.to_owned(), strategy(name)?)),
            None => policy.strategy = strategy(text)?,
        }
    }
    for text in &args.allow {
        let (from, to) = text.split_once('=').ok_or_else(|| {
            usage(format!("`{text}` allows nothing: write it as todo=in-progress,cancelled, or todo=any"))
        })?;
        let from = status(from)?;
        if to == "any" {
            policy.transitions.remove(&from);
        } else {
            policy.transitions.insert(from, statuses(to)?.into_iter().collect::<BTreeSet<_>>());
        }
    }
    if let Some(order) = &args.order {
        policy.order = statuses(order)?;
    }
    if let Some(text) = &args.convention {
        let parsed = (!text.is_empty()).then(|| text.parse::<Convention>()).transpose();
        policy.convention = parsed.map_err(|error| usage(error.to_string()))?.map(|convention| convention.to_string());
    }
    Ok(policy)
}

fn statuses(text: &str) -> Result<Vec<Status>, Failure> {
    text.split(',').filter(|word| !word.is_empty()).map(status).collect()
}

fn status(word: &str) -> Result<Status, Failure> {
    word.trim().parse::<State>().map(status_of).map_err(|error| usage(error.to_string()))
}

fn strategy(name: &str) -> Result<Strategy, Failure> {
    let all = [
        Strategy::SpecWins,
        Strategy::RuntimeWins,
        Strategy::LastWriteWins,
        Strategy::Merge,
        Strategy::Manual,
        Strategy::Skip,
    ];
    let wanted = name.trim().replace('-', "_").to_uppercase();
    all.into_iter().find(|strategy| strategy_name(*strategy) == wanted).ok_or_else(|| {
        usage(format!("`{name}` is no strategy: there are {}", all.map(strategy_name).join(", ").to_lowercase()))
    })
}

/// A policy as it is shown.
pub(super) fn shown(policy: &Policy) -> Value {
    let order = if policy.order.is_empty() { &Policy::ORDER[..] } else { &policy.order };
    let names = |statuses: &mut dyn Iterator<Item = &Status>| statuses.map(ToString::to_string).collect::<Vec<_>>();
    let transitions = policy.transitions.iter().map(|(from, to)| (from.to_string(), json!(names(&mut to.iter()))));
    let strategies = policy.strategies.iter().map(|(field, strategy)| (field.clone(), strategy_name(*strategy).into()));
    json!({
        "strategy": strategy_name(policy.strategy),
        "strategies": strategies.collect::<serde_json::Map<String, Value>>(),
        "order": names(&mut order.iter()),
        "transitions": transitions.collect::<serde_json::Map<String, Value>>(),
        "convention": policy.convention,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(strategies: &[&str], allow: &[&str], order: Option<&str>, convention: Option<&str>) -> PolicyArgs {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        PolicyArgs {
            name: "p".to_owned(),
            strategies: owned(strategies),
            allow: owned(allow),
            order: order.map(str::to_owned),
            convention: convention.map(str::to_owned),
            expect: ExpectArgs { expect: None },
        }
    }

    #[test]
    fn only_what_is_said_changes() {
        let before = Policy { convention: Some("kiro".to_owned()), ..Policy::default() };
        let policy = changed(before, &args(&["merge", "mark=SPEC_WINS"], &["todo=in-progress"], None, None)).unwrap();
        assert_eq!(policy.strategy, Strategy::Merge);
        assert_eq!(policy.strategy_for("mark"), Strategy::SpecWins);
        assert!(!policy.allows(Status::Todo, Status::Done));
        assert_eq!(policy.convention.as_deref(), Some("kiro"));
        let lifted = changed(policy, &args(&[], &["todo=any"], Some("done,todo"), Some(""))).unwrap();
        assert!(lifted.allows(Status::Todo, Status::Done));
        assert_eq!(lifted.stronger(Status::Done, Status::Todo), Some(Status::Todo));
        assert_eq!(lifted.convention, None);
    }

    #[test]
    fn what_there_isnt_is_refused_with_what_there_is() {
        let refused = |args: PolicyArgs| changed(Policy::default(), &args).unwrap_err().message;
        assert!(refused(args(&["best"], &[], None, None)).contains("there are spec_wins, runtime_wins"));
        assert!(refused(args(&[], &["todo"], None, None)).contains("write it as todo=in-progress"));
        assert!(refused(args(&[], &["todo=finished"], None, None)).contains("there are todo, in-progress"));
        assert!(refused(args(&[], &[], None, Some("kirro"))).contains("no dialect is called"));
    }
}
