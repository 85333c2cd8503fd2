package main

// edit replaces a text that stands exactly once in a file.
type edit struct{ file, old, new string }

// mutant is the program without one rule.
type mutant struct {
	name  string
	edits []edit
	// survives says why the simulation doesn't notice; empty: it has to.
	survives string
}

func one(name, file, old, new string) mutant {
	return mutant{name: name, edits: []edit{{file, old, new}}}
}

func covered(m mutant, why string) mutant {
	m.survives = why
	return m
}

const (
	keeper  = "node/keeper.go"
	ticket  = "node/ticket.go"
	drain   = "node/drain.go"
	renewGo = "node/renew.go"
	check   = "node/check.go"
	gate    = "node/gate.go"
	marks   = "routing/replica/marks.go"
	copies  = "routing/replica/replica.go"
	prelude = "routing/redistable/prelude.lua"
	renew   = "routing/redistable/renew.lua"
	change  = "routing/redistable/change.lua"
	asks    = "routing/redistable/check.lua"
	confirm = "routing/redistable/confirm.go"
	runner  = "rollback/operation/run.go"
	settle  = "rollback/operation/settle.go"
	members = "rollback/operation/members.go"
	world   = "test/sim/node.go"
)

// mutants are the rules of docs/architecture/switch.md, each left out.
var mutants = []mutant{
	one("node rule 1: marks are not kept", copies, "if r.disk != nil && u != nil {", "if false {"),
	one("node rule 1: marks are not fsynced", marks, "if err := j.file.Sync(); err != nil {", "if err := error(nil); err != nil {"),
	one("node rule 2: a lease never ends", keeper,
		"Settled: now.Before(g.settled), SettledLife: g.settledLife,\n		Armed: now.Before(g.armed), ArmedLife: g.armedLife,",
		"Settled: now.Before(g.settled) || g.settledLife > 0, SettledLife: g.settledLife,\n		Armed: now.Before(g.armed) || g.armedLife > 0, ArmedLife: g.armedLife,"),
	one("node rule 2: a lease counts from the answer", renewGo, "k.take(ctx, sent, renewed)", "sent = k.o.Now()\n\tk.take(ctx, sent, renewed)"),
	covered(one("node rule 2: a lease begins though the copy is behind", renewGo, "if k.o.Replica.Wait(ctx, r.Position) != nil {", "if false {"),
		"armed agencies are checked with the table before each dot, and nobody commits before this node's marks are there"),
	one("node rule 3: no check", check, "	ctx, cancel := context.WithTimeout(ctx, CheckTimeout)\n	defer cancel()\n	k.checkMu.Lock()", "	if true {\n		return nil\n	}\n	ctx, cancel := context.WithTimeout(ctx, CheckTimeout)\n	defer cancel()\n	k.checkMu.Lock()"),
	covered(one("node rule 3: the records are not looked at before the dot", ticket, "case !a.current(t):\n		return t.stale()", "case false:\n		return t.stale()"),
		"the check says the same of armed agencies, and others don't move"),
	one("node rule 4: every 250 is passed on", ticket, "if !right.covers(t.checked) || right.life(t.checked) != t.life {", "if _ = right; false {"),
	one("node rule 5: dots are not awaited", drain, "a.epoch.Compare(rec.Epoch) >= 0 && l.Dotted == 0 && l.InDoubt == 0", "a.epoch.Compare(rec.Epoch) >= 0 && l.InDoubt == 0"),
	one("node rule 5: doubts are not awaited", drain, "a.epoch.Compare(rec.Epoch) >= 0 && l.Dotted == 0 && l.InDoubt == 0", "a.epoch.Compare(rec.Epoch) >= 0 && l.Dotted == 0"),
	one("node rule 8: open intents are forgotten at a start", world, "l.gate.Remember(r.Agency, r.Epoch, until)", "_ = r"),
	one("node rule 8: an unknown ledger is forgotten at a start", world, "l.gate.RememberAny(until)", "_ = until"),
	covered(one("node rule 9: a new instance doesn't wait for the old one", renew, "and now <= over(old, old.long) then", "and false then"),
		"a machine of the world has one process at a time"),
	covered(one("node rule 9: another server is the same table", prelude, "return acceptedRun ~= run or acceptedReplication ~= replication and former ~= ''", "return false"),
		"marks above the table begin the rejoin as well"),
	one("node rule 9: the term doesn't grow", renew, "term = math.max(term, highest) + 1", "term = math.max(term, highest)"),
	one("node rule 9: a rejoin ends at once", renew, "if late == 0 and (renewed == total or", "if true or late == 0 and (renewed == total or"),
	one("node rule 9: a rejoin ends though nodes are behind", renew, "if late == 0 and (renewed == total or", "if (renewed == total or"),
	one("node rule 9: armed agencies are granted in a rejoin", renew, "settled, armed, why = lapsed and '0' or '1', '0', waits", "settled, armed, why = lapsed and '0' or '1', '1', waits"),
	one("node rule 9: what the table lost closes nothing", renew, "  if news then\n", "  if false then\n"),
	one("table: a lost record may be built upon", change, "if redis.call('HLEN', KEYS[13]) > 0 then\n  for", "if false then\n  for"),
	one("commit: drained nodes are not asked for", change, "if instance ~= m.instance or tonumber(taken) ~= term or not c or c < 0 then", "if false then"),
	one("commit: old reports count after a failover", change, "if instance ~= m.instance or tonumber(taken) ~= term or not c or c < 0 then", "if instance ~= m.instance or not c or c < 0 then"),
	one("runner: drained nodes are not asked for", members, "if at, ok := l.Drained[d.Agency]; !ok || at.Compare(d.Epoch) < 0 {", "if _ = d; false {"),
	{name: "commit: nobody asks for drained nodes", edits: []edit{
		{change, "if instance ~= m.instance or tonumber(taken) ~= term or not c or c < 0 then", "if false then"},
		{members, "if at, ok := l.Drained[d.Agency]; !ok || at.Compare(d.Epoch) < 0 {", "if _ = d; false {"},
	}},
	one("fence: the platform's limit is not waited for", members, "left = at.since.Add(lease + s.limit + s.leases.Margin).Sub(now)", "left = at.since.Add(lease + s.leases.Margin).Sub(now)"),
	{name: "fence: the counter need not stand still", edits: []edit{
		{members, "left = at.since.Add(lease + s.limit + s.leases.Margin).Sub(now)", "left = 0 * lease"},
		{members, "if more := end.Sub(n.Time); more >= 0 {", "if more := end.Sub(n.Time); more >= 0 && false {"},
		{change, "return now > over(l, l.short) and (l.short == 0 and l.taken == term or hasApplied(l, need))", "return true"},
	}},
	covered(one("fence: the short one counts for who doesn't know of the arming", members, "if !knows(n, &l, base) {", "if false {"),
		"needs a node that is cut off before the arming and serves on through begin, commit and publish; rarer than the seeds here"),
	covered(one("publish: not confirmed", confirm, "	if err := t.confirm(ctx); err != nil {", "	if err := error(nil); err != nil {"),
		"what a failover loses stands in the nodes' marks, and closes the agency"),
	covered(one("check: any epoch will do", asks, "if not a or a.epoch ~= ARGV[i + 1] or", "if not a or"),
		"a node that has not seen a begin isn't drained, so nobody commits before its dot is answered"),
	covered(one("check: a lease isn't asked for", asks, "if lease.taken ~= term or lease.instance ~= instance or lease.behind or clock() > lease.short then", "if false then"),
		"the node looks at its lease itself"),
	covered(one("check: also while rejoining", asks, "if moved() or rejoining then", "if false then"),
		"armed agencies get no lease then"),
	one("check and changes: not a write", prelude, "redis.call('SETRANGE', KEYS[7], 0, '')", ""),
	one("change: stale records are overwritten", change, "if was.rev ~= ARGV[i + 1] then\n    return stale('agency'", "if false then\n    return stale('agency'"),
	one("change: also while rejoining", change, "if rejoining and ARGV[19] ~= '1' and not endRejoin then", "if false then"),
}
