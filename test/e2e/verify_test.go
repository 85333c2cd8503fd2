package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/rollback/operation"
	"mailcutover/test/mailboxes"
	"mailcutover/test/peers"
)

// crossedWay is a node between two Dovecots, on the second of which the mover put mailboxes'
// content into others: into[local] is where that of local lies.
func crossedWay(t *testing.T, into map[string]string, locals ...string) *way {
	t.Helper()
	w := &way{
		exchange: peers.StartDovecot(t, peers.DovecotOptions{First: masterUser, Extra: germanFolders}),
		ox:       peers.StartDovecot(t, peers.DovecotOptions{First: masterUser, Extra: dottedFolders}),
		locals:   locals,
	}
	secret := filepath.Join(peers.TempDir(t, "secret"), "password")
	if err := os.WriteFile(secret, []byte("master\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(-30 * 24 * time.Hour)
	for _, local := range locals {
		m := mailboxes.Make(local+"@health.example", mailboxes.Options{Seed: 3, Messages: 60, Until: until})
		source := &mailboxes.Mailbox{Address: m.Address}
		for _, f := range m.Folders {
			source.Folders = append(source.Folders, mailboxes.Folder{Name: onExchange(f.Name), Messages: f.Messages})
		}
		there := local
		if other, ok := into[local]; ok {
			there = other
		}
		for _, one := range []struct {
			at  *peers.Dovecot
			box *mailboxes.Mailbox
			of  string
		}{{w.exchange, source, local}, {w.ox, m, there}} {
			if err := one.box.WriteMaildir(filepath.Join(one.at.Dir(), one.of+"@health.example")); err != nil {
				t.Fatal(err)
			}
		}
		numbersApart(t, filepath.Join(w.ox.Dir(), there+"@health.example"))
	}
	w.node = startNode(t, setup{
		platforms: []platform{readable("exchange", w.exchange, secret, ""), readable("ox", w.ox, secret, "")},
		more:      "recall: {settle: 100ms}\nverify: {react: lock, sample: 4}\n",
	})
	w.addAgency("health", locals...)
	return w
}

// numbersApart keeps a Dovecot from giving folders the UIDVALIDITY that another Dovecot gave
// in the same second, which would be a finding of its own.
func numbersApart(t *testing.T, dir string) {
	t.Helper()
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	for name, text := range map[string]string{"dovecot-uidvalidity": "7f000000", "dovecot-uidvalidity.7f000000": ""} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(file, []byte(text), 0o600), os.Chown(file, int(owner.Uid), int(owner.Gid))); err != nil {
			t.Fatal(err)
		}
	}
}

// findings returns those of a state, or the open ones.
func (w *way) findings(t *testing.T, state string) []admin.Finding {
	t.Helper()
	out, err := w.api.Findings(t.Context(), "health", state, "")
	if err != nil {
		t.Fatal(err)
	}
	return out.Findings
}

// pairs returns findings of a state as "who lies in whom".
func pairs(all []admin.Finding, state string) []string {
	var list []string
	for _, f := range all {
		if f.State == state {
			owner, _, _ := strings.Cut(f.OwnerAddress, "@")
			holder, _, _ := strings.Cut(f.Address, "@")
			list = append(list, fmt.Sprintf("%s %s in %s", f.Kind, owner, holder))
		}
	}
	slices.Sort(list)
	return list
}

// An agency is cut over whose mailboxes a mover has crossed. Nobody says anything: the node
// compares a sample, locks the agency, compares the rest, and names all pairs. What people say
// is put right is looked at again.
func TestCrossedMailboxesAreFound(t *testing.T) {
	t.Parallel()
	locals := []string{"anna", "ben", "carla", "dora", "emil", "fritz", "greta", "hans"}
	into := map[string]string{"anna": "ben", "ben": "carla", "carla": "anna", "dora": "emil", "emil": "dora", "fritz": "greta", "greta": "hans", "hans": "fritz"}
	w := crossedWay(t, into, locals...)
	var want []string
	for _, local := range locals {
		want = append(want, fmt.Sprintf("crossed %s in %s", local, into[local]))
	}
	slices.Sort(want)

	plan, err := w.api.Plan(t.Context(), admin.PlanRequest{Kind: string(operation.Cutover), Agency: "health"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(plan.Checks, func(c admin.PlanCheck) bool {
		return c.Name == "mailboxes" && c.Informs && strings.Contains(c.Text, "never compared")
	}) {
		t.Errorf("the plan doesn't say that nothing was compared: %+v", plan.Checks)
	}
	w.mustSwitch(operation.Cutover, "health")
	began := time.Now()
	var agency admin.Agency
	peers.WaitFor(t, 4*patience, "the agency to be locked", func() bool {
		agency, err = w.api.Agency(t.Context(), "health")
		return err == nil && agency.Locked
	})
	t.Logf("locked %v after the cutover", time.Since(began).Round(time.Millisecond))
	var found []string
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("found last: %v", found)
		}
	})
	peers.WaitFor(t, 4*patience, "all pairs to be named", func() bool {
		found = pairs(w.findings(t, "open"), "found")
		return slices.Equal(found, want)
	})

	text := w.must("verify", "findings", "--agency", "health")
	if !strings.Contains(text, "anna@health.example") || !strings.Contains(text, "crossed") {
		t.Errorf("shown to people:\n%s", text)
	}
	waitFor(t, "the status to say that all were compared", func() bool { // a pair is named before its mailbox is done with
		text := w.must("verify", "status")
		return strings.Contains(text, "full") && strings.Contains(text, "8 of 8")
	})
	waitFor(t, "the alarm", func() bool { return strings.Contains(w.must("alarm", "list"), "crossed-mailboxes/health") })
	if _, errs, code := w.command("verify", "--agency", "health", "--full", "--reason", "again", "--watch"); code != 1 || !strings.Contains(errs, "8 findings") {
		t.Errorf("looked at again: exit code %d, %s", code, errs)
	}
	first := w.findings(t, "open")[0]
	if text := w.must("verify", "messages", first.ID); strings.Count(text, first.Address) < 30 {
		t.Errorf("messages of a finding:\n%s", text)
	}
	if text := w.must("verify", "mailboxes", "--agency", "health", "--mailbox", "anna@health.example"); !strings.Contains(text, "Gesendete Elemente / Gesendete Objekte") {
		t.Errorf("one mailbox:\n%s", text)
	}

	// Two of them are put right; of a third one somebody only says so.
	swap := func(a, b string) {
		t.Helper()
		dir := func(local string) string { return filepath.Join(w.ox.Dir(), local+"@health.example") }
		for _, move := range [][2]string{{dir(a), dir("aside")}, {dir(b), dir(a)}, {dir("aside"), dir(b)}} {
			if err := os.Rename(move[0], move[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	swap("dora", "emil")
	mark := []string{"verify", "mark", "removed", "--reason", "moved back"}
	for _, f := range w.findings(t, "open") {
		if f.Address == "dora@health.example" || f.Address == "emil@health.example" || f.Address == "anna@health.example" {
			mark = append(mark, f.ID)
		}
	}
	w.must(mark...)
	right := []string{"crossed dora in emil", "crossed emil in dora"}
	rest := slices.DeleteFunc(slices.Clone(want), func(s string) bool { return slices.Contains(right, s) })
	peers.WaitFor(t, 4*patience, "the program to have looked again", func() bool {
		all := w.findings(t, "")
		return slices.Equal(pairs(all, "confirmed"), right) && slices.Equal(pairs(all, "found"), rest)
	})
	status, err := w.api.Verifications(t.Context(), "health")
	if err != nil || len(status.Agencies[0].Refuses) == 0 {
		t.Errorf("nothing keeps the way back open: %+v, %v", status, err)
	}

	swap("fritz", "greta") // fritz has his own, greta has hans'
	swap("greta", "hans")
	swap("anna", "carla") // anna's lies in ben's, ben's in anna's
	swap("anna", "ben")
	if out, errs, code := w.command("verify", "--agency", "health", "--full", "--reason", "all is back", "--watch"); code != 0 {
		t.Errorf("all is put right: exit code %d\n%s%s", code, out, errs)
	}
	if all := w.findings(t, "open"); len(all) != 0 {
		t.Errorf("open in the end: %v", pairs(all, "found"))
	}
}
