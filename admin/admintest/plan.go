package admintest

import (
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/internal/alarm"
	"mailcutover/plan"
	"mailcutover/plan/desk"
	"mailcutover/routing"
)

// Plan gives a node a part in the plan: it says what waves are likely to do, and does nothing of
// it. It knows nothing against any agency, and wants a backup confirmed.
func Plan(t testing.TB, o *admin.Options) {
	t.Helper()
	d, err := desk.New(desk.Options{
		Node: Name, Instance: "test", Table: o.Table, Replica: o.Replica, Runner: o.Runner, Knows: nothing{}, Alarms: o.Alarms.(*alarm.Set),
		Acts: func() desk.Acts { return nil }, Needed: func() int { return 1 }, Fallback: func() time.Duration { return time.Minute },
		Settings: func() plan.Settings { return plan.Settings{AtOnce: 1, BackupAge: time.Hour} },
	})
	if err != nil {
		t.Fatal(err)
	}
	o.Plan = d
}

// nothing is what a node knows of agencies.
type nothing struct{}

// Lists implements desk.Knows.
func (nothing) Lists(routing.AgencyID) plan.Fact { return plan.Fact{OK: true, Text: "well"} }

// Rehearsed implements desk.Knows.
func (nothing) Rehearsed(*routing.State, routing.AgencyID) (plan.Rehearsal, bool) {
	return plan.Rehearsal{}, false
}

// Compared implements desk.Knows.
func (nothing) Compared(*routing.State, routing.AgencyID) plan.Comparison { return plan.Comparison{} }

// Crossed implements desk.Knows.
func (nothing) Crossed(*routing.State, routing.AgencyID) []string { return nil }

// Drifted implements desk.Knows.
func (nothing) Drifted([]routing.AgencyID) []desk.Drift { return nil }

// Answers implements desk.Knows.
func (nothing) Answers() (refused, all uint64) { return 0, 0 }
