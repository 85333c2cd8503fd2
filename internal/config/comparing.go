package config

import "time"

// Comparing is what compares the mailboxes of both platforms.
type Comparing struct {
	Sample       int           `config:"sample"`        // mailboxes of each agency in a sample
	AfterCutover bool          `config:"after_cutover"` // compare a sample by itself
	React        React         `config:"react"`
	Every        time.Duration `config:"every"`   // compare a sample again, so long after the last comparison; 0: never
	MaxAge       time.Duration `config:"max_age"` // after which a comparison says nothing any more; 0: never
	Workers      int           `config:"workers"` // mailboxes at once
}

// React is what crossed mailboxes lead to.
type React string

const (
	ReactAlarm  React = "alarm"
	ReactLock   React = "lock" // the agency too, besides the alarm
	ReactReport React = "report"
)

func (React) words() []string { return []string{"alarm", "lock", "report"} }

func defaultComparing() Comparing {
	return Comparing{Sample: 50, AfterCutover: true, React: ReactAlarm, MaxAge: 7 * 24 * time.Hour, Workers: 8}
}

// comparing looks at what compares mailboxes.
func (c *checker) comparing() {
	v := &c.cfg.Verify
	c.atLeast("verify.sample", v.Sample, 1, "")
	c.atLeast("verify.workers", v.Workers, 1, "")
	if v.Every != 0 && v.Every < 10*time.Minute {
		c.add(Problem{Key: "verify.every", Value: shortDuration(v.Every), Want: "10m or more, or 0 for never", Hint: "each comparison reads both platforms"})
	}
	if v.MaxAge != 0 && v.MaxAge < time.Hour {
		c.add(Problem{Key: "verify.max_age", Value: shortDuration(v.MaxAge), Want: "1h or more, or 0 for never"})
	}
}
