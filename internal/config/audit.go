package config

import (
	"strings"
	"time"
	"unicode"

	"mailcutover/audit/checkpoint"
)

// Audit says how the audit log is signed.
type Audit struct {
	SigningKeyFile    string        `config:"signing_key_file" path:"yes"`              // package audit/checkpoint says what is in it; empty: nothing is signed
	CheckpointFile    string        `config:"checkpoint_file" path:"yes" restart:"yes"` // that checkpoints are appended to; empty: one in Data
	CheckpointRecords int           `config:"checkpoint_records"`                       // a checkpoint after so many records at the latest
	CheckpointEvery   time.Duration `config:"checkpoint_every"`                         // and so long after a record
}

func defaultAudit() Audit { return Audit{CheckpointRecords: 100, CheckpointEvery: time.Hour} }

// audit looks at the key that signs the audit log.
func (c *checker) audit(a *Audit) {
	c.atLeast("audit.checkpoint_records", a.CheckpointRecords, 1, "")
	if a.CheckpointEvery < time.Second {
		c.add(Problem{Key: "audit.checkpoint_every", Value: shortDuration(a.CheckpointEvery), Want: "1s or more"})
	}
	if strings.ContainsFunc(a.CheckpointFile, unicode.IsControl) {
		c.add(Problem{Key: "audit.checkpoint_file", Value: show(a.CheckpointFile), Want: "a file, or \"\" for one in data"})
	}
	if path := a.SigningKeyFile; path != "" {
		text, ok := c.privateFile("audit.signing_key_file", path)
		if !ok {
			return
		}
		if _, err := checkpoint.ParseKey(text); err != nil {
			c.add(Problem{Key: "audit.signing_key_file", Value: show(path), Want: "a file that mailcutover audit key new has made", Hint: err.Error()})
		}
	}
}
