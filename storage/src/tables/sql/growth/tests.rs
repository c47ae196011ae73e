//! What grows too large, and what people write.

use std::fmt::Write as _;

use super::*;

/// A WITH of so many levels, each made of the one before by `select`, in which `{}` stands for its name.
fn chain(levels: usize, first: &str, select: &str) -> String {
    let mut script = format!("WITH c0(x) AS ({first})");
    for level in 1..=levels {
        let body = select.replace("{}", &format!("c{}", level - 1));
        write!(script, ", c{level}(x) AS ({body})").unwrap();
    }
    format!("{script} SELECT x FROM c{levels}")
}

fn nested(levels: usize, first: &str, select: &str) -> String {
    (0..levels).fold(first.to_owned(), |within, _| select.replace("{}", &within))
}

fn refusal(script: &str) -> String {
    match check(script) {
        Err(error) => error.to_string(),
        Ok(()) => String::new(),
    }
}

#[test]
fn what_doubles_with_every_level_is_refused() {
    let twice = "SELECT p.x FROM {} p, {} q";
    let scripts = [
        chain(17, "SELECT 1", twice),
        chain(17, "SELECT 1", "SELECT p.x FROM 'C0' z, \"{}\" p JOIN (SELECT * FROM [{}]) q"),
        chain(17, "SELECT 1", "SELECT 1 WHERE 1 IN {} OR EXISTS (SELECT 1 FROM {})"),
        chain(20, "SELECT x FROM t", "SELECT x + x FROM {}"),
        nested(20, "SELECT x FROM t", "SELECT x+x AS x FROM ({})"),
        nested(8, "SELECT x FROM t", "SELECT x+x+x+x+x+x+x+x AS x FROM ({})"),
        nested(8, "SELECT x FROM t", "SELECT x IN (x,x,x,x,x,x,x,x) AS x FROM ({}) WHERE y IS DISTINCT FROM z"),
        format!("SELECT 1; {}", chain(17, "SELECT 1", twice)),
        format!("EXPLAIN {} -- so", chain(17, "SELECT 1", twice)),
    ];
    for script in &scripts {
        assert!(refusal(script).contains("too many subqueries"), "{script}: {}", refusal(script));
    }
    assert!(refusal(&nested(500, "SELECT 1 AS x", "SELECT x FROM ({})")).contains("nested too deep"));
    let shadowing = "WITH a AS (WITH a AS (SELECT 1) SELECT 1 FROM a p, a q) SELECT 1 FROM a p, a q";
    assert!(refusal(shadowing).contains("a name of its own"), "{}", refusal(shadowing));
}

#[test]
fn what_people_write_is_far_from_it() {
    let many = (0..20_000).map(|at| format!("('5.0', 'task {at}')")).collect::<Vec<_>>().join(", ");
    let union = vec!["SELECT id, title AS t FROM tasks WHERE status = 'todo'"; 100].join(" UNION ALL ");
    let scripts = [
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 9) SELECT p.x FROM n p, n q".to_owned(),
        "WITH open AS (SELECT * FROM tasks WHERE status NOT IN ('done', 'archived')),
              per AS (SELECT assignee, count(*) AS n, sum(CASE WHEN priority = 'high' THEN 1 ELSE 0 END) AS urgent
                      FROM open GROUP BY assignee),
              share AS (SELECT p.assignee, p.n * 100.0 / (SELECT sum(n) FROM per) AS percent, p.urgent FROM per p),
              ranked AS (SELECT *, row_number() OVER (ORDER BY percent DESC) AS r FROM share)
         SELECT r.*, o.title FROM ranked r JOIN open o ON o.assignee = r.assignee AND o.priority = 'high' WHERE r.r <= 5"
            .to_owned(),
        chain(8, "SELECT x FROM t", "SELECT CASE WHEN x > 0 THEN x ELSE 0 END FROM {}"),
        chain(100, "SELECT x FROM t", "SELECT max(x, 1) FROM {} WHERE x > 0"),
        format!("INSERT INTO tasks (change, title) VALUES {many}"),
        format!("WITH u AS ({union}) SELECT count(*), t FROM u GROUP BY t"),
        union,
        "BEGIN; UPDATE tasks SET status = 'done' WHERE id IN (SELECT id FROM blocks); COMMIT; ".repeat(1_000),
        format!("SELECT {}1{}", "(".repeat(900), ")".repeat(900)),
        ")(;WITH a AS".to_owned(),
    ];
    for script in &scripts {
        assert_eq!(refusal(script), "", "{}", &script[..script.len().min(200)]);
    }
}
