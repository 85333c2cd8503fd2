package alarm

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestStanding(t *testing.T) {
	type step struct {
		texts map[string]string
		clear string        // by a person, before
		after time.Duration // since the step before
		want  string        // key and count of each
	}
	a, b := map[string]string{"a": "A"}, map[string]string{"a": "A", "b": "B"}
	for _, c := range []struct {
		name  string
		again time.Duration
		steps []step
	}{
		{"again after a minute", time.Minute, []step{
			{b, "", 0, "a1 b1"},
			{a, "", time.Second, "a1"},
			{a, "a", time.Second, ""},
			{a, "", time.Minute, "a1"},
			{a, "", time.Minute, "a2"},
			{nil, "", time.Second, ""},
		}},
		{"with another text", 0, []step{
			{b, "", 0, "a1 b1"},
			{b, "b", time.Hour, "a1"},
			{map[string]string{"a": "other", "b": ""}, "", time.Second, "a2"},
			{b, "", time.Second, "a3 b1"},
			{nil, "", 0, ""},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				set := NewSet(nil)
				s := NewStanding(set, c.again)
				for i, step := range c.steps {
					time.Sleep(step.after)
					set.Clear(step.clear)
					s.Set(step.texts)
					got := ""
					for _, one := range set.List() {
						got += fmt.Sprintf(" %s%d", one.Key, one.Count)
					}
					if got = strings.TrimSpace(got); got != step.want {
						t.Errorf("step %d: %q, want %q", i, got, step.want)
					}
				}
			})
		})
	}
}
