package notice

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/approval"
	"mailcutover/plan"
	"mailcutover/rollback/canary"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
)

// world keeps facts and derives, as a node does.
type world struct {
	t     *testing.T
	facts map[string]Facts
	rev   routing.Revision
}

func newWorld(t *testing.T) *world { return &world{t: t, facts: make(map[string]Facts)} }

// change returns the types of events that an update makes, and the events.
func (w *world) change(u routing.Update) (types []Type, events []Event) {
	w.rev++
	c := &Change{Installation: "lab", Incarnation: "i", Position: Position{1, w.rev}, Time: time.Unix(int64(w.rev), 0), Who: "Anna", Reason: "wave 1",
		Known: func(key string) Facts { return w.facts[key] }}
	for _, r := range Records(&u) {
		r.Revision = w.rev
		events = append(events, Derive(c, &r, w.facts[r.Key])...)
		if w.facts[r.Key] = r.Facts; r.Facts == nil {
			delete(w.facts, r.Key)
		}
	}
	for i := range events {
		types = append(types, events[i].Type)
		check(w.t, &events[i])
	}
	return types, events
}

// check holds an event to what is said of its type.
func check(t *testing.T, e *Event) {
	t.Helper()
	about := e.Type.about()
	for key := range e.Data {
		if !slices.Contains(about.Data, key) {
			t.Errorf("%s has %q=%q, which isn't among its data %v", e.Type, key, e.Data[key], about.Data)
		}
	}
	for _, l := range []Language{English, German} {
		if title := e.Title(l); title == "" || strings.ContainsAny(title, "{}\n") || strings.Contains(title, "  ") {
			t.Errorf("%s: title %q", e.Type, title)
		}
	}
	if e.ID == "" || e.Severity == "" || e.SpecVersion != "1.0" || e.Source != "/mailcutover/lab" || e.Data["who"] != "Anna" {
		t.Errorf("event %+v", e)
	}
}

func doc(key string, v any) routing.Document {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return routing.Document{Key: key, Text: string(text)}
}

func TestAgencies(t *testing.T) {
	w := newWorld(t)
	a, err := routing.NewAgency("health", "exchange", "ox")
	if err != nil {
		t.Fatal(err)
	}
	must := func(next routing.Agency, err error) routing.Agency {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	for _, step := range []struct {
		next func()
		want []Type
	}{
		{func() {}, []Type{AgencyAdded}},
		{func() {}, nil},
		{func() { a = a.Arm() }, []Type{AgencyArmed}},
		{func() { a = must(a.Begin("op-1", 7, routing.EventBegin)) }, []Type{AgencyPhase, AgencyClosed}},
		{func() { a = must(a.Commit("op-1", 7)) }, []Type{AgencyPhase}},
		{func() { a = must(a.Publish("op-1")) }, []Type{AgencyOpened}},
		{func() { a = must(a.Lock()).Emergency("em-1") }, []Type{AgencyLocked, AgencyClosed, EmergencyBegun}},
		{func() { a = must(a.Confirmed("em-1")) }, []Type{EmergencyConfirmed}},
		{func() { a = must(a.Unlock()) }, []Type{AgencyUnlocked, AgencyOpened}},
		{func() { a = must(a.Settle()) }, nil},
		{func() { a = must(a.EndSettle()) }, []Type{AgencySettled}},
		{func() { a.Mapping[0] = 1 }, []Type{AgencyMapping}},
		{func() { a = must(a.Finalise()) }, []Type{AgencyFinalised}},
	} {
		step.next()
		got, _ := w.change(routing.Update{Agencies: []routing.Agency{a}})
		if !slices.Equal(got, step.want) {
			t.Errorf("%s %s: %v, want %v", a.Phase, a.Tightness, got, step.want)
		}
	}
	frozen := routing.Update{Freezes: []routing.Freeze{{Who: "Berta", Reason: "wait"}}}
	lifted := routing.Update{Freezes: []routing.Freeze{{Removed: true}}}
	ids := make(map[string]bool)
	for _, u := range []routing.Update{frozen, lifted, frozen, lifted} {
		_, events := w.change(u)
		if len(events) != 1 || ids[events[0].ID] {
			t.Fatalf("events %+v", events)
		}
		ids[events[0].ID] = true
		if title := events[0].Title(German); !strings.HasPrefix(title, "alle Behörden: ") {
			t.Errorf("title %q", title)
		}
	}
}

func TestOperations(t *testing.T) {
	w := newWorld(t)
	op := operation.Operation{ID: "op-1", Kind: operation.Cutover, Agency: "health", Agencies: []routing.AgencyID{"health", "pilot"}, Step: operation.StepBegin, Runner: "mx1", Who: "Berta", Reason: "wave 1"}
	record := func() routing.Update {
		text, err := json.Marshal(&op)
		if err != nil {
			t.Fatal(err)
		}
		return routing.Update{Operations: []routing.Operation{{
			ID: op.ID, Kind: string(op.Kind), Agency: op.Agency, Agencies: op.Agencies, Step: string(op.Step), Runner: op.Runner, Ended: op.Step.Ended(), Who: op.Who, Reason: op.Reason, Detail: string(text),
		}}}
	}
	if got, _ := w.change(record()); !slices.Equal(got, []Type{OperationStarted, OperationStep}) {
		t.Errorf("%v", got)
	}
	op.Step, op.Hooks = operation.StepHooks, []operation.HookState{{Name: "close-mapi", External: true, Status: operation.HookStarted}}
	if got, e := w.change(record()); !slices.Equal(got, []Type{OperationStep, OperationWaits}) || e[1].Title(English) != "cutover of agency health waits for people: close-mapi" {
		t.Errorf("%v %v", got, e)
	}
	op.Step, op.Hooks[0].Status = operation.StepCommit, operation.HookTold
	op.Canaries = []canary.Result{{Agency: "health"}}
	if got, _ := w.change(record()); !slices.Equal(got, []Type{OperationStep}) {
		t.Errorf("%v", got)
	}
	op.Step, op.Closed, op.Opened = operation.StepDone, time.Unix(10, 0), time.Unix(12, 5e8)
	got, events := w.change(record())
	if !slices.Equal(got, []Type{OperationDone}) || events[0].Data["closed_seconds"] != "2.500" || events[0].Data["canaries_failed"] != "health" || events[0].Title(German) != "Umschaltung von Behörde health ist fertig" {
		t.Errorf("%v %+v", got, events)
	}
	if !slices.Equal(events[0].Agencies(), []string{"health", "pilot"}) {
		t.Errorf("agencies %v", events[0].Agencies())
	}
	if got, _ := w.change(record()); got != nil {
		t.Errorf("an operation that had ended: %v", got)
	}
	op.ID, op.Step, op.Error = "op-2", operation.StepAborted, "drain took\r\ntoo long"
	if got, e := w.change(record()); !slices.Equal(got, []Type{OperationStarted, OperationAborted}) || !strings.HasSuffix(e[1].Title(English), "drain took too long") {
		t.Errorf("%v %v", got, e)
	}
}

func TestDocuments(t *testing.T) {
	w := newWorld(t)
	p := approval.Proposal{ID: "p1", Content: approval.Content{Kind: "cutover", Agency: "health"}, Person: "Anna", Needed: 2}
	list := map[string]any{"id": "L1", "agency": "health", "rows": 200, "standing": "proposed", "approved": []string{"Berta"}}
	run := map[string]any{"id": "health-1234", "kind": "recall", "agency": "health", "from": "ox", "to": "exchange"}
	verify := map[string]any{"agency": "health", "running": map[string]any{"run": "r1", "mode": "sample", "cause": "cutover"}}
	stop := plan.Stop{Findings: []plan.Finding{{Cause: plan.ByVerify, Agency: "health", Text: "3 findings", Node: "mx1"}, {Cause: plan.ByDrift, Text: "drift"}}}
	for _, step := range []struct {
		name string
		set  func()
		doc  func() routing.Document
		want []Type
	}{
		{"proposed", func() {}, func() routing.Document { return doc("proposal/p1", p) }, []Type{ProposalMade}},
		{"one", func() { p.Approvals = []approval.Vote{{Person: "Berta"}} }, func() routing.Document { return doc("proposal/p1", p) }, []Type{ProposalApproved}},
		{"two", func() { p.Approvals = append(p.Approvals, approval.Vote{Person: "Carl"}) }, func() routing.Document { return doc("proposal/p1", p) }, []Type{ProposalApproved}},
		{"used", func() { p.End = approval.Used }, func() routing.Document { return doc("proposal/p1", p) }, []Type{ProposalUsed}},
		{"old", func() {}, func() routing.Document { return routing.Document{Key: "proposal/p1", Removed: true} }, nil},
		{"not read", func() {}, func() routing.Document { return routing.Document{Key: "proposal/p2", Text: "{"} }, nil},
		{"list", func() {}, func() routing.Document { return doc("list/health/L1/000", list) }, []Type{ListProposed}},
		{"rows", func() {}, func() routing.Document {
			return routing.Document{Key: "list/health/L1/001", Text: "x anna@health.example"}
		}, nil},
		{"in force", func() { list["standing"] = "active" }, func() routing.Document { return doc("list/health/L1/000", list) }, []Type{ListActive}},
		{"run", func() {}, func() routing.Document { return doc("recall/health-1234", run) }, []Type{RecallBegun}},
		{"share", func() {}, func() routing.Document {
			return doc("recall-part/health-1234/mx1", map[string]any{"node": "mx1", "ended": time.Unix(5, 0), "totals": map[string]int{"not_back": 3}})
		}, []Type{RecallShare}},
		{"accepted", func() { run["accepted"] = map[string]string{"who": "Berta"} }, func() routing.Document { return doc("recall/health-1234", run) }, []Type{RecallAccepted}},
		{"compared", func() {}, func() routing.Document { return doc("verify/health", verify) }, []Type{VerifyBegun}},
		{"found", func() {
			verify["running"], verify["last"] = nil, map[string]any{"run": "r1", "mailboxes": 9, "compared": 5, "found": map[string]int{"crossed": 2}}
		}, func() routing.Document { return doc("verify/health", verify) }, []Type{VerifyEnded, VerifyFound}},
		{"trouble", func() { verify["trouble"] = map[string]any{"run": "r2", "error": "no login", "tries": 1} }, func() routing.Document { return doc("verify/health", verify) }, []Type{VerifyTrouble}},
		{"findings", func() {}, func() routing.Document {
			return doc("verify-findings/health/000", []map[string]string{{"address": "anna@health.example"}})
		}, nil},
		{"stop", func() {}, func() routing.Document { return doc("plan/stop", stop) }, []Type{PlanStopped}},
		{"lift", func() {}, func() routing.Document { return routing.Document{Key: "plan/stop", Removed: true} }, []Type{PlanLifted}},
		{"unknown", func() {}, func() routing.Document { return doc("later/thing", stop) }, nil},
	} {
		step.set()
		got, events := w.change(routing.Update{Documents: []routing.Document{step.doc()}})
		if !slices.Equal(got, step.want) {
			t.Errorf("%s: %v, want %v", step.name, got, step.want)
		}
		for i := range events {
			if e := fmt.Sprint(events[i]); strings.Contains(e, "@health.example") {
				t.Errorf("%s: an address is in the event: %s", step.name, e)
			}
			if events[i].Type == RecallShare && (events[i].Agency != "health" || events[i].Node != "mx1" || events[i].Data["not_back"] != "3") {
				t.Errorf("share %+v", events[i])
			}
		}
	}
}

// What a whole reading of the table shows is told with what the document says: the change that
// brought it isn't known.
func TestStopThatWasMissed(t *testing.T) {
	stop := plan.Stop{Person: "Anna", Findings: []plan.Finding{{Cause: plan.ByPerson, Text: "Anna: look first"}, {Cause: plan.ByDrift, Text: "drift"}}}
	records := Records(&routing.Update{Documents: []routing.Document{doc("plan/stop", stop)}})
	events := Derive(&Change{Installation: "lab", Late: true, Who: "Berta", Reason: "backup"}, &records[0], nil)
	if len(events) != 1 || events[0].Type != PlanStopped || events[0].Data["who"] != "Anna" || events[0].Data["reason"] != "Anna: look first" {
		t.Errorf("%+v", events)
	}
}

func TestMembers(t *testing.T) {
	w := newWorld(t)
	m := routing.Member{Node: "mx2", Instance: "a"}
	for _, step := range []struct {
		set  func()
		want []Type
	}{
		{func() {}, []Type{NodeJoined}}, {func() { m.Draining = true }, []Type{NodeDraining}}, {func() { m.Draining = false }, []Type{NodeReturned}},
		{func() { m.Attested, m.Unconfirmed = "a", "em-2" }, []Type{NodeFenced, EmergencyBegun}}, {func() { m.Evicted = true }, []Type{NodeEvicted}},
		{func() { m = routing.Member{Node: "mx2", Instance: "b", Unconfirmed: "em-2"} }, []Type{NodeJoined}},
	} {
		step.set()
		if got, _ := w.change(routing.Update{Members: []routing.Member{m}}); !slices.Equal(got, step.want) {
			t.Errorf("%+v: %v, want %v", m, got, step.want)
		}
	}
}

// Two nodes give one event one id; another event has another.
func TestIDs(t *testing.T) {
	a, _ := routing.NewAgency("health", "exchange", "ox")
	locked, err := a.Lock()
	if err != nil {
		t.Fatal(err)
	}
	one, other := newWorld(t), newWorld(t)
	one.change(routing.Update{Agencies: []routing.Agency{a}})
	other.change(routing.Update{Agencies: []routing.Agency{a}})
	_, first := one.change(routing.Update{Agencies: []routing.Agency{locked}})
	_, second := other.change(routing.Update{Agencies: []routing.Agency{locked}})
	if len(first) != 2 || first[0].ID != second[0].ID || first[1].ID != second[1].ID || first[0].ID == first[1].ID {
		t.Errorf("%+v\n%+v", first, second)
	}
	_, again := other.change(routing.Update{Agencies: []routing.Agency{a}})
	_, later := other.change(routing.Update{Agencies: []routing.Agency{locked}})
	if len(again) != 2 || later[0].ID == second[0].ID {
		t.Errorf("a later event has the id of an earlier one: %+v", later)
	}
}

func TestFilter(t *testing.T) {
	e := Event{Type: OperationDone, Agency: "health", Data: map[string]string{"agencies": "health pilot"}}
	global := Event{Type: NodeJoined, Data: map[string]string{}}
	test := Event{Type: Test}
	for _, c := range []struct {
		f               Filter
		one, all, tests bool
	}{
		{Filter{}, true, true, true},
		{Filter{Types: []string{"operation.*"}}, true, false, true},
		{Filter{Types: []string{"agency.*", "node.joined"}}, false, true, true},
		{Filter{Types: []string{"*"}, Agencies: []string{"pilot"}}, true, false, true},
		{Filter{Agencies: []string{"tax"}}, false, false, true},
		{Filter{Types: []string{"["}}, false, false, true},
	} {
		if c.f.Wants(&e) != c.one || c.f.Wants(&global) != c.all || c.f.Wants(&test) != c.tests {
			t.Errorf("%+v: %v %v %v", c.f, c.f.Wants(&e), c.f.Wants(&global), c.f.Wants(&test))
		}
	}
	for pattern, ok := range map[string]bool{"*": true, "operation.*": true, "agency.locked": true, "operaton.*": false, "[": false, "": false} {
		if Matches(pattern) != ok {
			t.Errorf("pattern %q", pattern)
		}
	}
}
