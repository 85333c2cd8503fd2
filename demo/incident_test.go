package demo

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"mailcutover/identity/report"
)

// The incident: what the check refuses, what would have happened, and what happens instead.
func TestIncident(t *testing.T) {
	var out bytes.Buffer
	if err := Incident(t.Context(), IncidentOptions{Out: &out, Log: io.Discard, Pause: -1}); err != nil {
		t.Errorf("%v", err)
	}
	for _, want := range []string{
		`The column "Accountname" was sorted without the others: rows 2 to 791.`, "REFUSED: 790 of 790 rows",
		"790 of 790 mailboxes received another one's mail", "790 of 790 mailboxes received their own mail",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q", want)
		}
	}
	if t.Failed() {
		t.Logf("\n%s", &out)
	}
}

// untilRefused plays the acts before the mail.
func untilRefused(t *testing.T, o IncidentOptions, change func(*incident)) (*incident, string) {
	t.Helper()
	var out bytes.Buffer
	o.Out, o.Log, o.Pause = &out, io.Discard, -1
	i, err := newIncident(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(i.phaseOne(t.Context()), i.spreadsheet(t.Context())); err != nil {
		t.Fatal(err)
	}
	change(i)
	if err := i.refused(t.Context()); err != nil {
		t.Fatal(err)
	}
	return i, out.String()
}

func TestIncidentInGerman(t *testing.T) {
	i, out := untilRefused(t, IncidentOptions{Language: report.German}, func(*incident) {})
	for _, want := range []string{`Die Spalte "Accountname" wurde ohne die anderen sortiert: Zeilen 2 bis 791.`, "ABGELEHNT: 790 von 790 Zeilen"} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
	if err := i.end(); err != nil {
		t.Error(err)
	}
}

// The demo's own numbers can be wrong, and are told if they are.
func TestIncidentNotesAWrongNumber(t *testing.T) {
	i, _ := untilRefused(t, IncidentOptions{}, func(i *incident) {
		for n := range i.pasted { // nobody sorted anything
			i.pasted[n].account = i.ad.id[i.pasted[n].id].Account
		}
	})
	if err := i.end(); !errors.Is(err, ErrBroken) || !strings.Contains(strings.Join(i.wrong, "\n"), "0 permutations of 0 rows") {
		t.Errorf("error %v, noted %q", err, i.wrong)
	}
}
