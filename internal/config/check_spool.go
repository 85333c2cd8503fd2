package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

// spool looks at what becomes of mail that can't be delivered now.
func (c *checker) spool(cfg *Config) {
	s := &cfg.Spool
	if d := s.QuarantineAge; d != 0 && d < 24*time.Hour {
		c.add(Problem{Key: "spool.quarantine_age", Value: shortDuration(d), Want: "24h or more, or 0 for never", Hint: "a human has to have had the time to look"})
	}
	c.positive("spool.retry.first", s.Retry.First)
	c.positive("spool.retry.patience", s.Retry.Patience)
	if s.Retry.Max < s.Retry.First {
		c.add(Problem{Key: "spool.retry.max", Value: shortDuration(s.Retry.Max), Want: "at least spool.retry.first, " + shortDuration(s.Retry.First)}, "spool.retry.first")
	}
	if s.Retry.Life < time.Hour || s.Retry.Life < s.Retry.Max {
		c.add(Problem{Key: "spool.retry.life", Value: shortDuration(s.Retry.Life), Want: "at least an hour, and at least spool.retry.max", Hint: "RFC 5321 section 4.5.4.1 asks for four to five days"}, "spool.retry.max")
	}
	if id := cfg.Notices.Platform; id != "" && !slices.ContainsFunc(cfg.Platforms, func(p Platform) bool { return string(p.ID) == id }) {
		c.add(Problem{Key: "notices.platform", Value: fmt.Sprintf("%q", id), Want: "the id of one of platforms"}, "platforms")
	}
	if d := cfg.Notices.DelayAfter; d > 0 && d >= s.Retry.Life {
		c.add(Problem{Key: "notices.delay_after", Value: shortDuration(d), Want: "less than spool.retry.life, " + shortDuration(s.Retry.Life)}, "spool.retry.life")
	}
	if strings.ContainsFunc(cfg.Notices.Contact, unicode.IsControl) {
		c.add(Problem{Key: "notices.contact", Value: fmt.Sprintf("%q", cfg.Notices.Contact), Want: "text without control characters"})
	}
	c.positive("ledger.max_age", cfg.Ledger.MaxAge)
	if cfg.Ledger.HashKey.IsSet() && len(cfg.Ledger.HashKey.Reveal()) < 16 {
		c.add(Problem{Key: "ledger.hash_key", Want: "16 characters at least"})
	}
	c.retained(cfg)
}
