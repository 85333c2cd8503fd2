package demo

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func run(t *testing.T, fault Break) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := Run(t.Context(), Options{Out: &out, Log: io.Discard, Break: fault, Rate: 200, Phase: 600 * time.Millisecond})
	return out.String(), err
}

func TestEveryMessageOnceOnTheRightPlatform(t *testing.T) {
	out, err := run(t, BreakNothing)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"cutover of agency police: exchange -> ox", "rollback of agency police: ox -> exchange", "lies once in the right mailbox", "in the right mailbox on the right platform; "} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
}

// A check that can't fail shows nothing: each planted fault must be found, and named as
// what it is.
func TestPlantedFaultsAreFound(t *testing.T) {
	for fault, want := range map[Break]string{
		BreakRoute:     "for whom no 250 was given",
		BreakLose:      "was answered 250 and is nowhere",
		BreakDuplicate: "is there 2 times",
	} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			out, err := run(t, fault)
			if !errors.Is(err, ErrBroken) || !strings.Contains(out, want) || !strings.Contains(out, "A PROMISE WAS BROKEN") {
				t.Errorf("error %v, want %v and %q:\n%s", err, ErrBroken, want, out)
			}
		})
	}
}

func TestUnknownFault(t *testing.T) {
	if _, err := run(t, "everything"); err == nil || !strings.Contains(err.Error(), "route, lose or duplicate") {
		t.Errorf("error %v", err)
	}
}

// The comparison itself: what is right at which time.
func TestCompare(t *testing.T) {
	all := []mailbox{{agency: moved, address: "a@police.example", at: map[string]string{source: "a@police.example", target: "x@ox.police.example"}}}
	m := &all[0]
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	switches := []span{{source, target, at(100), at(200)}, {target, source, at(300), at(400)}}
	on := func(platform string, ms int) delivery {
		return delivery{id: 1, rcpt: m.at[platform], platform: platform, at: at(ms)}
	}
	for name, c := range map[string]struct {
		stored []delivery
		want   result
	}{
		"before":                {[]delivery{on(source, 50)}, result{sent: 1, right: 1}},
		"too early":             {[]delivery{on(target, 50)}, result{sent: 1, wrong: 1}},
		"in the switch, old":    {[]delivery{on(source, 150)}, result{sent: 1, right: 1}},
		"in the switch, new":    {[]delivery{on(target, 150)}, result{sent: 1, right: 1}},
		"after":                 {[]delivery{on(target, 250)}, result{sent: 1, right: 1}},
		"late":                  {[]delivery{on(source, 250)}, result{sent: 1, wrong: 1}},
		"rolled back":           {[]delivery{on(source, 450)}, result{sent: 1, right: 1}},
		"late after a rollback": {[]delivery{on(target, 450)}, result{sent: 1, wrong: 1}},
		"lost":                  {nil, result{sent: 1, lost: 1}},
		"twice":                 {[]delivery{on(source, 50), on(target, 250)}, result{sent: 1, right: 1, duplicates: 1}},
	} {
		got, _ := compare(all, []accepted{{id: 1, mailbox: m, at: at(0)}}, c.stored, switches)
		if *got[moved] != c.want {
			t.Errorf("%s: %+v, want %+v", name, *got[moved], c.want)
		}
	}
	// Between begin and done, the old side may not follow the new one.
	two := []accepted{{id: 1, mailbox: m}, {id: 2, mailbox: m}}
	late := on(source, 160)
	late.id = 2
	if got, _ := compare(all, two, []delivery{on(target, 150), late}, switches); got[moved].wrong != 1 {
		t.Errorf("there, here and there again: %+v", *got[moved])
	}
}
