//! Compiled policies, and what evaluates them.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use regorus::{
    CompiledPolicy, Value,
    languages::rego::compiler::Compiler,
    rvm::{Program, RegoVM},
    utils::limits::ExecutionTimerConfig,
};

/// Idle evaluators kept; more are made and dropped when more workers than that evaluate at once.
const MOST_IDLE: usize = 64;

/// What a policy may spend on one request. The instructions are what holds it; the time is for
/// builtins that do much in one instruction, and wide, since it passes on a busy machine too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    pub instructions: usize,
    pub time: Duration,
}

impl Budget {
    fn timer(self) -> ExecutionTimerConfig {
        let check_interval = const { NonZeroU32::new(64).unwrap() };
        ExecutionTimerConfig { limit: self.time, check_interval }
    }
}

/// A loaded policy with the rules that are asked of it.
pub(super) struct Compiled {
    rules: Vec<String>,
    budget: Budget,
    /// For regorus's virtual machine; `None`: its interpreter, some ten times slower, evaluates it.
    program: Option<(Arc<Program>, CompiledPolicy)>,
    engine: regorus::Engine,
    data: Value,
    /// A worker takes one out, evaluates, and puts it back: the lock is held for neither.
    idle: Mutex<Vec<Evaluator>>,
}

enum Evaluator {
    Machine(Box<RegoVM>),
    Interpreter(Box<regorus::Engine>),
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiled").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Compiled {
    /// `rules` are paths such as `data.stoa.authz.allow`; all must be there.
    pub(super) fn new(
        mut engine: regorus::Engine,
        rules: Vec<String>,
        budget: Budget,
        is_for_machine: bool,
    ) -> Result<Self> {
        let data = engine.get_data();
        engine.set_execution_timer_config(budget.timer());
        let policy = engine.compile_with_entrypoint(&rules[0].as_str().into())?;
        let entries: Vec<&str> = rules.iter().map(String::as_str).collect();
        let compile = || Compiler::compile_from_policy(&policy, &entries).ok();
        let program = if is_for_machine { compile() } else { None };
        let program = program.map(|program| (program, policy));
        let compiled = Self { rules, budget, program, engine, data, idle: Mutex::default() };
        let first = compiled.make()?;
        compiled.put_back(first);
        Ok(compiled)
    }

    pub(super) fn is_for_machine(&self) -> bool {
        self.program.is_some()
    }

    /// The value of the rule with that index.
    pub(super) fn evaluate(&self, rule: usize, input: Value) -> Result<Value> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut evaluator = match idle {
            Some(evaluator) => evaluator,
            None => self.make()?,
        };
        let value = evaluator.evaluate(rule, &self.rules[rule], input)?;
        // One that failed is dropped with whatever state it was left in.
        self.put_back(evaluator);
        Ok(value)
    }

    fn put_back(&self, evaluator: Evaluator) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push(evaluator);
        }
    }

    fn make(&self) -> Result<Evaluator> {
        let Some((program, policy)) = &self.program else {
            return Ok(Evaluator::Interpreter(Box::new(self.engine.clone())));
        };
        let mut machine = Box::new(RegoVM::new_with_policy(policy.clone()));
        machine.load_program(program.clone());
        machine.set_data(self.data.clone())?;
        machine.set_max_instructions(self.budget.instructions);
        machine.set_execution_timer_config(Some(self.budget.timer()));
        Ok(Evaluator::Machine(machine))
    }
}

impl Evaluator {
    fn evaluate(&mut self, index: usize, rule: &str, input: Value) -> Result<Value> {
        match self {
            Self::Machine(machine) => {
                machine.set_input(input);
                Ok(machine.execute_entry_point_by_index(index)?)
            }
            Self::Interpreter(engine) => {
                engine.set_input(input);
                let value = engine.eval_rule(rule.to_owned());
                // What `print` wrote would be kept for as long as the evaluator.
                engine.take_prints()?;
                value
            }
        }
    }
}
