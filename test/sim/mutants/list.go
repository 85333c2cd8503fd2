package main

// edit replaces a text that stands exactly once in a file.
type edit struct{ file, old, new string }

// mutant is the program without one rule.
type mutant struct {
	rule  string // of docs/architecture/switch.md
	name  string // what is left out
	edits []edit

	// test fails without the rule where no scene and no seed does, and why says what covers
	// it there. Both are empty where the simulation has to notice.
	test proof
	why  string
}

// proof is a test by the package's path and an expression for -run.
type proof struct{ pkg, run string }

func one(rule, name, file, old, new string) mutant {
	return mutant{rule: rule, name: name, edits: []edit{{file, old, new}}}
}

// except is a mutant that the simulation doesn't notice.
func except(m mutant, pkg, run, why string) mutant {
	m.test, m.why = proof{pkg, run}, why
	return m
}

const (
	keeper   = "node/keeper.go"
	ticket   = "node/ticket.go"
	drain    = "node/drain.go"
	renewGo  = "node/renew.go"
	check    = "node/check.go"
	gate     = "node/gate.go"
	locks    = "node/locallock.go"
	heir     = "node/heir.go"
	names    = "routing/document.go"
	sessions = "node/session.go"
	marks    = "routing/replica/marks.go"
	copies   = "routing/replica/replica.go"
	prelude  = "routing/redistable/prelude.lua"
	renew    = "routing/redistable/renew.lua"
	change   = "routing/redistable/change.lua"
	asks     = "routing/redistable/check.lua"
	found    = "routing/redistable/found.lua"
	confirm  = "routing/redistable/confirm.go"
	members  = "rollback/operation/members.go"
	restore  = "rollback/control/bootstrap.go"
	ledgerGo = "ledger/ledger.go"
	sockets  = "proxy/dial/socket_linux.go"
	body     = "proxy/relay/body.go"
	slot     = "proxy/relay/slot.go"
	leg      = "proxy/transfer/leg.go"
	world    = "test/sim/node.go"
)

// The table's contract, by the Redis of the simulation.
const (
	contract = "./test/sim/redismodel"
	suite    = "TestTableContract"
)

const (
	dotted    = "a.epoch.Compare(rec.Epoch) >= 0 && l.Dotted == 0 && l.InDoubt == 0"
	oldReport = "if instance ~= m.instance or tonumber(taken) ~= term or not c or c < 0 then"
	byRunner  = "if at, ok := l.Drained[d.Agency]; !ok || at.Compare(d.Epoch) < 0 {"
	shortLua  = "return now > over(l, l.short) and (l.short == 0 and l.taken == term or hasApplied(l, need))"
	longLua   = "return fence.kind == 'long' and now > over(l, l.long) and proves(l, member)"
	granted   = "settled, armed, why = lapsed and '0' or '1', '0', waits"
)

// mutants are the rules of docs/architecture/switch.md, each left out.
var mutants = []mutant{
	one("node rule 1", "marks are not kept", copies, "if r.disk != nil && u != nil {", "if false {"),
	one("node rule 1", "marks are not fsynced", marks, "if err := j.file.Sync(); err != nil {", "if err := error(nil); err != nil {"),
	one("node rule 1", "the marks' file has no durable name", marks, "if err := j.disk.SyncDir(j.dir); err != nil {", "if err := error(nil); err != nil {"),

	one("node rule 2", "a lease never ends", keeper,
		"Settled: now.Before(g.settled), SettledLife: g.settledLife,\n		Armed: now.Before(g.armed), ArmedLife: g.armedLife,",
		"Settled: now.Before(g.settled) || g.settledLife > 0, SettledLife: g.settledLife,\n		Armed: now.Before(g.armed) || g.armedLife > 0, ArmedLife: g.armedLife,"),
	except(one("node rule 2", "a lease counts from the answer", renewGo, "k.take(ctx, sent, renewed)", "sent = k.o.Now()\n\tk.take(ctx, sent, renewed)"),
		"./node", "TestALeaseCountsFromTheQuestion",
		"An answer is awaited for half a second, or two until the registration is confirmed, and who waits for the fence counts the whole lease from when it first saw the counter, which is never before. Where both are not enough is a process that stops between the answer and the next look at its clock; a run can stop it only at its network."),
	except(one("node rule 2", "the margin is not taken off", renewGo, "settled = sent.Add(k.o.Lease.Settled - k.o.Lease.Margin)", "settled = sent.Add(k.o.Lease.Settled)"),
		"./node", "TestTheRightIsWhatTheTableGranted",
		"The margin is for the time from a decision to its effect and for clocks that run at different speeds; in a run deciding takes no time, and all clocks run alike."),
	except(one("node rule 2", "a lease begins though the copy is behind", renewGo, "if k.o.Replica.Wait(ctx, r.Position) != nil {", "if false {"),
		"./node", "TestTheRightIsWhatTheTableGranted|TestRejoin",
		"Armed agencies are checked with the table before each dot, and nobody commits before this node's marks are there. What is left is a settled agency whose node comes back after a whole switch, armed and settled again, in the moment in which it has a lease and not yet the log."),
	except(one("node rule 2", "who is evicted keeps its lease", renewGo, "if errors.Is(err, table.ErrEvicted) || errors.Is(err, table.ErrInstance) {\n		k.drop()", "if false {\n		k.drop()"),
		"./node", "TestAnEvictedNodeDecidesNothing",
		"A node is evicted behind its fence, when its lease is over anyway. It matters where people attest what isn't so."),
	except(one("node rule 2", "a node decides before its registration is confirmed", renewGo, "	if k.confirmed {\n		return nil", "	if true {\n		return nil"),
		"./node", "TestNoRightBeforeTheRegistrationIsDurable",
		"A failover that forgets the registration is another server: the node's marks begin the rejoin, and its next renewal registers it again before anybody may commit."),
	except(one("node rule 2", "a node that doesn't follow renews", renewGo, "	if k.lags() && !k.wentBack(ctx) {\n", "	if false {\n"),
		"./node", "TestANodeThatDoesNotFollowDoesNotRenew",
		"It costs availability only: a node that renews and doesn't follow is never drained, and keeps everybody waiting."),

	one("node rule 3", "no check", check, "	b, err := k.answered(ctx, func(b *batch) {\n		for", "	if len(versions) > 0 {\n		return nil\n	}\n	b, err := k.answered(ctx, func(b *batch) {\n		for"),
	except(one("node rule 3", "the records are not looked at before the dot", ticket, "case !a.current(t):\n		return t.stale()", "case false:\n		return t.stale()"),
		"./node", "TestTheRecordsAreLookedAtAfterTheCheck",
		"They are looked at before the check as well, and the check says the same of armed agencies. Others don't move before they are armed everywhere."),
	except(one("node rule 3", "the dot is not one write", body, "if err := c.write(append(c.out[:0], dot...)); err != nil {", "_ = c.write([]byte(dot[:1]))\n	if err := c.write([]byte(dot[1:])); err != nil {"),
		"./proxy/relay", "TestLastWriteIsTheDotAloneWhateverTheSize|TestWritesOnTheWire", "A rule of sockets."),

	one("node rule 4", "every 250 is passed on", ticket, "if !right.covers(t.checked) || right.life(t.checked) != t.life {", "if _ = right; false {"),
	except(one("node rule 4", "a lease that lapsed in between counts", ticket, "if !right.covers(t.checked) || right.life(t.checked) != t.life {", "if !right.covers(t.checked) {"),
		"./node", "TestAnAnswerOfAnotherLifeIsNotPassedOn",
		"The node has to have a lease again before it reads the answer, which a stopped process of a run reads first."),

	one("node rule 5", "dots are not awaited", drain, dotted, "a.epoch.Compare(rec.Epoch) >= 0 && l.InDoubt == 0"),
	one("node rule 5", "doubts are not awaited", drain, dotted, "a.epoch.Compare(rec.Epoch) >= 0 && l.Dotted == 0"),
	except(one("node rule 5", "what has no dot is not cut", gate, "if (!t.dotted || t.session) && t.cut != nil {", "if t.session && t.cut != nil {"),
		"./node", "TestWhatHasNoDotIsCutAndNotAwaited",
		"It gets no dot in any case, since the records are looked at before it. The cut makes that the sender is told at once."),

	except(one("node rule 6", "sessions are not cut", gate, "if (!t.dotted || t.session) && t.cut != nil {", "if !t.dotted && t.cut != nil {"),
		"./node", "TestASessionIsCutAndAwaited", "No byte flows any more, since each is asked for, and the drain waits for the session's end. The cut makes that it doesn't wait for a client that says nothing."),
	one("node rule 6", "sessions are not awaited", ticket, "t.dotted, t.life = true, right.life(t.checked)", "t.dotted, t.life = !t.session, right.life(t.checked)"),
	one("node rule 6", "bytes flow after a lapse", sessions, "	if !t.lives.cover(&right, t.underArmed()) {\n		return ErrLapsed", "	if !t.lives.cover(&right, t.underArmed()) && false {\n		return ErrLapsed"),

	except(one("node rule 7", "no SO_LINGER", sockets, "if err := unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {", "if err := error(nil); err != nil {"),
		"./proxy/dial", "TestSocketsAreHardened", "A rule of sockets."),
	except(one("node rule 7", "no TCP_USER_TIMEOUT", sockets, "return unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacknowledged.Milliseconds()))", "_ = unacknowledged\n	return nil"),
		"./proxy/dial", "TestSocketsAreHardened", "A rule of sockets."),
	except(one("node rule 7", "an armed agency shares its transaction", leg, "case (l.armed || d.Armed) && l.agency != d.Agency:", "case false:"),
		"./proxy/transfer", "TestTranscripts",
		"Nothing is lost or late by it: each recipient has its ticket, and none gets the dot if one may not. But one agency's closing would put the other's mail off (P4)."),
	except(one("node rule 7", "a pooled connection is used up to the platform's limit", slot, "case now.Sub(c.born) >= p.ep.Limits.MaxAge:", "case false:"),
		"./proxy/relay", "TestConnectionsAreLetGo|TestExchangeLimitIsKept|TestStaleConnectionIsReplaced",
		"The platform ends the connection itself; what it had begun is in doubt then. The rule makes that rare."),

	one("node rule 8", "open intents are forgotten at a start", world, "l.gate.Remember(r.Agency, r.Epoch, until)", "_ = r"),
	one("node rule 8", "an unknown ledger is forgotten at a start", world, "l.gate.RememberAny(until)", "_ = until"),
	one("node rule 8", "a ledger doesn't show that it was begun", ledgerGo, "	if l.flush(b) == nil {\n		_ = l.sync(kindMark)\n	}", "	_ = l.flush(b)"),

	one("node rule 9", "a new instance doesn't wait for the old one", renew, "and not (now > over(old, old.long) and (gaveUp(old) or was.runs == '1' and ARGV[20] == was.instance and ARGV[21] == old.counter)) then", "and false then"),
	{rule: "node rule 9", name: "a new instance waits for the lease alone", edits: []edit{
		{renew, "was.runs == '1' and ARGV[20] == was.instance and ARGV[21] == old.counter", "true"},
	}},
	one("node rule 9", "a new instance doesn't wait for the platform's limit", heir, "return max(0, h.since.Add(h.lease+limit+margin).Sub(now))", "return max(0, h.since.Add(h.lease+margin+0*limit).Sub(now))"),
	one("node rule 9", "another server is the same table", prelude, "return acceptedRun ~= run or acceptedReplication ~= replication and former ~= ''", "return false"),
	one("node rule 9", "the term doesn't grow", renew, "term = math.max(term, highest) + 1", "term = math.max(term, highest)"),
	one("node rule 9", "a rejoin ends at once", renew, "if others == 0 and late == 0 and (renewed == total or", "if true or late == 0 and (renewed == total or"),
	except(one("node rule 9", "a rejoin ends though nodes are behind", renew, "if others == 0 and late == 0 and (renewed == total or", "if others == 0 and (renewed == total or"),
		contract, suite, "The renewal of a node that is behind brings the lost records in the same script, and these close their agencies everywhere."),
	except(one("node rule 9", "a majority ends a rejoin without a promotion", renew, "2 * renewed > total and proven == renewed and now", "2 * renewed > total and now"),
		"./routing/redistable", "TestNoMajorityWithoutPromotion", "Nodes are away for longer than a majority waits only in a few seeds, and who is away has to have seen what the others didn't."),
	except(one("node rule 9", "armed agencies are granted in a rejoin", renew, granted, "settled, armed, why = lapsed and '0' or '1', '1', waits"),
		contract, suite, "The check before each dot refuses while the nodes rejoin. Without either: below."),
	{rule: "node rule 9", name: "armed agencies are granted and checked in a rejoin", edits: []edit{
		{renew, granted, "settled, armed, why = lapsed and '0' or '1', '1', waits"},
		{asks, "if moved() or rejoining then", "if false then"},
	}},
	one("node rule 9", "who had no lease gets one for settled agencies in a rejoin", renew, granted, "settled, armed, why = '1', '0', waits"),
	one("node rule 9", "what the table lost closes nothing", renew, "  if news then\n", "  if false then\n"),
	except(one("node rule 9", "a node that is behind has a lease", renew, "elseif behind then\n  settled, armed, why = '0', '0'", "elseif false then\n  settled, armed, why = '0', '0'"),
		contract, suite, "Its own copy closes what regressed, whatever it may decide."),

	except(one("node rule 9", "a member on another disk counts as the one before", renew, "if others == 0 and late == 0 and (renewed == total or", "if late == 0 and (renewed == total or"),
		contract, suite, "Whoever knew more has to be the only one, lose its disk, and Redis go back at the same time: a seed of the campaign found it once in 111,000."),
	except(one("node rule 9", "a node without its name begins no rejoin", renew, "if moved() and math.max(term, highest) < 4294967295 then", "if false then"),
		"./routing/redistable", "TestScriptsDoAsTheBook", "Nothing goes wrong by it, but nobody serves, and people can't attest, where all nodes have lost their disks."),

	one("names", "a copy is compared with the last term only", names, "common := s.lineage.Common(s.pos.Revision, whole.Lineage, whole.Position.Revision)",
		"common := whole.Position.Revision\n\tif s.pos.Term < whole.Position.Term {\n\t\tcommon = whole.Lineage.Last().Base\n\t}"),
	one("names", "who wasn't heard has seen nothing", renew, "if (ARGV[24] ~= '-' or unheard) and", "if ARGV[24] ~= '-' and"),
	one("names", "the table isn't asked before a denial", gate, "g.rights.Names(ctx, state.Position()); err != nil {", "g.rights.Names(ctx, state.Position()); err != nil && false {"),

	one("node rule 10", "a node's own lock is not written", locks, "func (k *Keeper) writeLocks() error { return k.write(locksFile, sortedLocks(k.locks)) }", "func (k *Keeper) writeLocks() error { _ = sortedLocks; return nil }"),
	except(one("node rule 10", "a node's own lock doesn't cut", gate, "	if a.locked || a.lost {\n		return false", "	if a.lost {\n		return false"),
		"./node", "TestLockLocal", "Nothing new is decided for the agency in any case. It is about what was under way without a dot, for which a run has too little time."),
	one("node rule 10", "a node's own lock is not told to the table", locks, "	if !rec.Locked {\n", "	if false {\n"),
	except(one("node rule 10", "the copy on disk is believed without its checksum", marks, "if crc32.Checksum(text, castagnoli) != sum {", "if false {"),
		"./routing/replica", "TestEveryDamageIsFound|TestDamagedMarks", "Disks of the simulation lose, and don't damage."),
	except(one("node rule 10", "a founded table is open", restore, "a.Epoch, a.Locked = a.Epoch.Next(), true", "a.Epoch = a.Epoch.Next()"),
		"./rollback/control", "TestBootstrap.*", "The nodes rejoin, and who has seen more than the copy closes what it has seen. The lock is for what no node that is left has seen: people look first."),
	except(one("node rule 10", "a founded table doesn't rejoin", found, "'longest', whole(longest), 'rejoining', '1', 'prior', '', 'lineage'", "'longest', whole(longest), 'rejoining', '0', 'prior', '', 'lineage'"),
		contract, suite, "Everything is locked, and who has seen more closes it when it renews. People would unlock before that."),

	except(one("script of a change", "stale records of agencies are overwritten", change, "if was.rev ~= ARGV[i + 1] then\n    return stale('agency'", "if false then\n    return stale('agency'"),
		contract, suite, "Each step of an operation compares the operation's record, too. What is left are two people who change one agency within milliseconds, at two nodes."),
	except(one("script of a change", "stale records of operations are overwritten", change, "  if rev ~= ARGV[i + 1] then\n    return stale('operation'", "  if false then\n    return stale('operation'"),
		contract, suite, "Each change of an operation has the records of its agencies in it, and these are compared."),
	except(one("script of a change", "a change id counts twice", change, "if done then\n", "if false then\n"),
		contract, suite, "A change that is sent again names revisions that it has changed itself, and is refused; whoever sent it is told of a conflict that isn't one."),
	except(one("script of a change", "another incarnation is changed", change, "if incarnation ~= ARGV[1] then\n  return {'INCARNATION'", "if false then\n  return {'INCARNATION'"),
		contract, suite, "Foreign data has other revisions, and no node reads it. An emptied Redis has no incarnation at all."),
	except(one("script of a change", "a change of another term", change, "if inTerm ~= term and not raised then", "if false then"),
		"./routing/redistable", "TestScriptsDoAsTheBook", "A new term begins with a rejoin, which takes only what closes; and its revisions are the ones that were compared."),
	except(one("script of a change", "an epoch of another term", change, "if wrongTerm then\n", "if false then\n"),
		contract, suite, "Every caller takes the epoch's term from where it takes the change's."),
	except(one("script of a change", "names that changed since they were checked", change, "if ARGV[5] ~= '0' and ARGV[5] ~= mapped then", "if false then"),
		contract, suite, "Lists are changed by nobody else in a run."),
	except(one("script of a change", "a mapping that isn't there", change, "if mappingKey and redis.call('HEXISTS', mappingKey, 'complete') == 0 then", "if false then"),
		contract, suite, "Its agency's names would be closed, on every node."),
	except(one("script of a change", "also while rejoining", change, "if rejoining and ARGV[19] ~= '1' and not endRejoin then", "if false then"),
		contract, suite, "A switch needs what the rejoin waits for, too: reports of all members to this server."),
	except(one("script of a change", "a lost record is built upon", change, "if redis.call('HLEN', KEYS[13]) > 0 then\n  for", "if false then\n  for"),
		contract, suite, "The runner and everybody else computes from its own copy, in which the agency has regressed, and leaves it alone; and the record is told to all nodes."),
	except(one("script of a change", "not a write", prelude, "redis.call('SETRANGE', KEYS[7], 0, '')", ""),
		"./routing/redistable", "TestServerThatRefuses|TestReplicas|TestSplitBrain",
		"A renewal writes in any case, so that a server that lost its replicas gives no lease, and a check asks for that lease by the server's own clock."),

	{rule: "guards", name: "nobody asks for drained nodes", edits: []edit{{change, oldReport, "if false then"}, {members, byRunner, "if _ = d; false {"}}},
	except(one("guards", "the script doesn't ask for drained nodes", change, oldReport, "if false then"),
		contract, suite, "The runner asks before it sends. The script is for what comes in between: a node that registers or restarts, and a runner that was stopped."),
	except(one("guards", "old reports count after a failover", change, oldReport, "if instance ~= m.instance or not c or c < 0 then"),
		contract, suite, "The runner takes no report that was made to another server."),
	except(one("guards", "the runner doesn't ask for drained nodes", members, byRunner, "if _ = d; false {"),
		"./rollback/operation", "TestSilentMembers|TestAcrossNodes|TestFences", "The script asks when it commits; the operation would go on to its hooks too early."),
	except(one("guards", "a frozen agency is begun", change, "if redis.call('HEXISTS', KEYS[12], '*') == 1 or redis.call('HEXISTS', KEYS[12], ARGV[i]) == 1 then", "if false then"),
		contract, suite, "A freeze guards no promise: people use it."),
	except(one("guards", "another protocol", change, "if ARGV[22] ~= '0' and m.protocol ~= ARGV[22] then", "if false then"),
		contract, suite, "All nodes of a run have one version."),
	except(one("guards", "who hasn't applied what it should", change, "if drained == 0 and not hasApplied(l, needApplied) then", "if false then"),
		contract, suite, "The runner asks before it sends, as for drained nodes."),
	except(one("guards", "evicted without a fence", change, "if not f or f.kind == 'short' or not holds(f, was, ARGV[i + 5], 0) then", "if false then"),
		contract, suite, "Control makes the fence before it sends."),

	one("fence", "the platform's limit is not waited for", members, "left = at.since.Add(lease + w.limit + s.leases.Margin).Sub(now)", "left = at.since.Add(lease + s.leases.Margin).Sub(now)"),
	{rule: "fence", name: "the counter need not stand still", edits: []edit{
		{members, "left = at.since.Add(lease + w.limit + s.leases.Margin).Sub(now)", "left = 0 * lease"},
		{members, "if more := end.Sub(n.Time); more >= 0 {", "if more := end.Sub(n.Time); more >= 0 && false {"},
		{change, shortLua, "return true"},
		{change, longLua, "return true"},
	}},
	except(one("fence", "the runner doesn't look at the lease's end", members, "if more := end.Sub(n.Time); more >= 0 {", "if more := end.Sub(n.Time); more >= 0 && false {"),
		"./rollback/operation", "TestAFenceWaitsForTheTablesClock", "The counter stands still for longer than any lease; and the script looks."),
	except(one("fence", "the script doesn't look at the lease's end", change, shortLua, "return l.short == 0 and l.taken == term or hasApplied(l, need)"),
		contract, suite, "The runner looks, and waits for longer."),
	one("fence", "the runner takes the short one for who doesn't know of the arming", members, "if !knows(n, &l, w.base) {", "if false {"),
	except(one("fence", "the script takes the short one for who doesn't know of the arming", change, shortLua, "return now > over(l, l.short)"),
		contract, suite, "The runner takes the long one."),
	{rule: "fence", name: "the short one counts for who doesn't know of the arming", edits: []edit{
		{members, "if !knows(n, &l, w.base) {", "if false {"},
		{change, shortLua, "return now > over(l, l.short)"},
	}},
	except(one("fence", "the runner takes time for a clock that stands still", members, "		if !m.ClockRuns {\n			return f, 0, false", "		if false {\n			return f, 0, false"),
		"./rollback/operation", "TestFences|TestSilentMembers", "The script doesn't. Without either: below."),
	except(one("fence", "the script takes time for a clock that stands still", prelude, "return member.runs == '1' or gaveUp(lease)", "return true"),
		contract, suite, "The runner doesn't."),
	{rule: "fence", name: "time counts for a clock that stands still", edits: []edit{
		{members, "		if !m.ClockRuns {\n			return f, 0, false", "		if false {\n			return f, 0, false"},
		{prelude, "return member.runs == '1' or gaveUp(lease)", "return true"},
	}},
	except(one("fence", "one person's word is enough", members, "(w.alone || m.Unconfirmed == \"\")", "(true || m.Unconfirmed == \"\")"),
		"./rollback/operation", "TestFences|TestTargetDeadAndASilentNode", "A rule of people: the word is as true as they are."),

	one("confirm", "nothing is confirmed", confirm, "	if err := t.confirm(ctx); err != nil {", "	if err := error(nil); err != nil {"),
	one("check", "any epoch will do", asks, "if not a or a.epoch ~= ARGV[i + 1] or", "if not a or"),
	except(one("check", "a lease isn't asked for", asks, "if lease.taken ~= term or lease.instance ~= instance or lease.behind or clock() > lease.short then", "if false then"),
		contract, suite, "A node whose clock stood still asks with the epoch that it knows, and that is compared."),
	except(one("check", "also while rejoining", asks, "if moved() or rejoining then", "if false then"),
		contract, suite, "Armed agencies are granted nothing then. Without either: above, node rule 9."),
	except(one("check", "an agency that the table lost", asks, "lost and redis.call('HEXISTS', KEYS[13], ARGV[i]) == 1 then", "false then"),
		contract, suite, "The lost record is told to all nodes, whose copies close the agency."),
	except(one("renewal", "a late one counts", renew, "if old.instance == instance and sequence ~= 0 and sequence <= old.sequence then", "if false then"),
		contract, suite, "What a renewal reports is true for good: drained stays drained at that epoch. It could only make a lease seem longer than the node has it."),
}
