package config

import (
	"strconv"
	"time"

	"mailcutover/plan"
)

// Planning is what holds for all waves (docs/operations/plan.md).
type Planning struct {
	AtOnce       int           `config:"at_once"`       // agencies of all waves that are under way or bake at one time
	BackupAge    time.Duration `config:"backup_age"`    // for how long the word that the backup is confirmed counts; 0: it isn't asked
	RehearsalAge time.Duration `config:"rehearsal_age"` // how old an agency's rehearsal may be; 0: none is asked
	VerifyAge    time.Duration `config:"verify_age"`    // how old the comparison of an agency may be that its wave has moved; 0: none is asked
	Retries      int           `config:"retries"`       // how often an agency of a wave may be tried again, where the wave doesn't say it
	Stop         PlanStop      `config:"stop"`
}

// PlanStop says from how much on the plan is stopped; 0: never for that cause.
type PlanStop struct {
	CanaryFailures int `config:"canary_failures"`
	VerifyFindings int `config:"verify_findings"`
	ErrorRate      int `config:"error_rate"` // percent
	Drift          int `config:"drift"`      // rows
	Aborts         int `config:"aborts"`
}

func defaultPlanning() Planning {
	return Planning{
		AtOnce: 1, BackupAge: 24 * time.Hour, RehearsalAge: 30 * 24 * time.Hour, VerifyAge: 24 * time.Hour, Retries: 2,
		Stop: PlanStop{CanaryFailures: 1, VerifyFindings: 1, ErrorRate: 25, Drift: 1, Aborts: 2},
	}
}

// planning looks at what holds for all waves.
func (c *checker) planning() {
	p := &c.cfg.Plan
	c.atLeast("plan.at_once", p.AtOnce, 1, "")
	for _, one := range []struct {
		key   string
		value time.Duration
	}{{"plan.backup_age", p.BackupAge}, {"plan.rehearsal_age", p.RehearsalAge}, {"plan.verify_age", p.VerifyAge}} {
		if one.value != 0 && one.value < time.Minute {
			c.add(Problem{Key: one.key, Value: shortDuration(one.value), Want: "1m or more, or 0 for not asked"})
		}
	}
	if p.Retries > plan.MaxRetries {
		c.add(Problem{Key: "plan.retries", Value: strconv.Itoa(p.Retries), Want: "1 to " + strconv.Itoa(plan.MaxRetries) + ", or 0 for never"})
	}
	if rate := p.Stop.ErrorRate; rate > 100 {
		c.add(Problem{Key: "plan.stop.error_rate", Value: strconv.Itoa(rate), Want: "1 to 100 percent, or 0 for never"})
	}
}
