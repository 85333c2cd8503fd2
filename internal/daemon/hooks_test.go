package daemon

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailcutover/rollback/control"
	"mailcutover/rollback/hook"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
	"mailcutover/test/peers"
)

// script is a hook that writes down who called it, and refuses while FAIL.KIND-PLATFORM is
// there.
const script = `#!/bin/sh
read -r head
said="$MAILCUTOVER_HOOK-$MAILCUTOVER_PLATFORM"
while read -r line; do
	echo "$said $line" >>"$1"
	id=${line#*'"mailbox":"'} id=${id%%'"'*}
	if [ -e "$1.fail.$said" ]; then
		echo '{"mailbox":"'$id'","ok":false,"error":"the platform says no"}'
	else
		echo '{"mailbox":"'$id'","ok":true}'
	fi
done
`

// hooked gives the bench's platforms all hooks, by a reload, and returns the hooks' log.
func (b *bench) hooked(more string) (log string) {
	b.t.Helper()
	dir := b.t.TempDir()
	program, log := filepath.Join(dir, "hook"), filepath.Join(dir, "log")
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		b.t.Fatal(err)
	}
	call := fmt.Sprintf("{command: [%q, %q], attempts: 2, pause: 10ms}", program, log)
	b.rehook(", outside:", fmt.Sprintf("close: %s, open: %[1]s, forward_on: %[1]s, forward_off: %[1]s", call), more)
	return log
}

// rehook takes over settings with these hooks before each place, and more at the end.
func (b *bench) rehook(place, hooks, more string) {
	b.t.Helper()
	text, err := os.ReadFile(b.path)
	if err != nil {
		b.t.Fatal(err)
	}
	next := strings.ReplaceAll(string(text), place, ", hooks: {"+hooks+"}"+place) + more
	if err := os.WriteFile(b.path, []byte(next), 0o600); err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.Reload(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) arm() {
	b.t.Helper()
	if _, err := b.control.Arm(b.t.Context(), control.Act{ID: "arm", Who: "tester", Reason: "test"}, []routing.AgencyID{"health"}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) operate(kind operation.Kind) (operation.Operation, error) {
	return b.runner.Run(b.t.Context(), operation.Request{Kind: kind, Agency: "health", Who: "tester", Reason: "test"})
}

// called returns whom the hooks were called for, in short, and empties their log.
func called(t *testing.T, log string) string {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(text)) {
		who, box, _ := strings.Cut(line, " ")
		if !strings.Contains(box, `"address":"anna@health.example","login":"anna@health.example"`) || !strings.Contains(box, `"other_address":"anna@health.example"`) {
			t.Errorf("hook %s was called with %s", who, box)
		}
		all = append(all, who)
	}
	if err := os.RemoveAll(log); err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

// A cutover and a rollback call the platforms' hooks while the agency is closed, one that
// fails aborts the operation, and what was done before it is taken back.
func TestOperationsCallHooks(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	log := b.hooked("")
	b.arm()
	for _, c := range []struct {
		name  string
		kind  operation.Kind
		fails string
		want  string
	}{
		{"cutover", operation.Cutover, "", "close-exchange forward-off-ox forward-on-exchange open-ox"},
		{"rollback", operation.Rollback, "", "close-ox forward-off-exchange forward-on-ox open-exchange"},
		{"aborted at open", operation.Cutover, "open-ox", "close-exchange forward-off-ox forward-on-exchange open-ox open-ox close-ox forward-off-exchange forward-on-ox open-exchange"},
		{"aborted at close", operation.Cutover, "close-exchange", "close-exchange close-exchange open-exchange"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, _ := b.replica.State().Agency("health")
			if c.fails != "" {
				fail := log + ".fail." + c.fails
				if err := os.WriteFile(fail, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				defer os.Remove(fail)
			}
			op, err := b.operate(c.kind)
			if got := called(t, log); got != c.want {
				t.Errorf("called\n%s, want\n%s", got, c.want)
			}
			after, _ := b.replica.State().Agency("health")
			switch {
			case !after.Open():
				t.Errorf("%s is left closed: %+v", after.ID, op)
			case c.fails == "" && (err != nil || op.Step != operation.StepDone || after.Platform() == before.Platform()):
				t.Errorf("%+v, %v", op, err)
			case c.fails != "" && (!errors.Is(err, operation.ErrHook) || !errors.Is(err, hook.ErrFailed) || !strings.Contains(err.Error(), "the platform says no") || after.Platform() != before.Platform()):
				t.Errorf("%+v, %v", op, err)
			}
		})
	}
	if text := b.log.String(); strings.Contains(text, "anna@health.example") {
		t.Error("the log names a mailbox")
	}
}

// An operation waits for the mover's word where the settings say so, and what an approval
// would be bound to changes with the program.
func TestOperationWaitsForTheMover(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	log := b.hooked("operations: {mover: [cutover]}\n")
	b.arm()
	plan, err := b.runner.Plan(t.Context(), operation.Request{Kind: operation.Cutover, Agency: "health", Who: "tester", Reason: "test"})
	if err != nil {
		t.Fatal(err)
	}
	names := ""
	for _, h := range plan.Hooks {
		names += " " + h.Name
	}
	if want := " close-exchange mover forward-off-ox forward-on-exchange open-ox"; names != want {
		t.Errorf("planned%s, want%s", names, want)
	}
	ended := make(chan error, 1)
	go func() { _, err := b.operate(operation.Cutover); ended <- err }()
	var waiting routing.OperationID
	b.until("the mover's turn", func() bool {
		for _, rec := range b.replica.State().Operations() {
			waiting = rec.ID
		}
		err := b.runner.Tell(t.Context(), waiting, hook.Mover, "tester", "all of it")
		return err == nil
	})
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got, want := called(t, log), "close-exchange forward-off-ox forward-on-exchange open-ox"; got != want {
		t.Errorf("called %s, want %s", got, want)
	}
	// A rollback doesn't wait.
	if op, err := b.operate(operation.Rollback); err != nil || len(op.Hooks) != 4 {
		t.Errorf("%+v, %v", op, err)
	}
	program := filepath.Join(filepath.Dir(log), "hook")
	if err := os.WriteFile(program, []byte(script+"# another\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	again, err := b.runner.Plan(t.Context(), operation.Request{Kind: operation.Cutover, Agency: "health", Who: "tester", Reason: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if again.Hooks[0].Digest == plan.Hooks[0].Digest || again.Hooks[1].Digest != plan.Hooks[1].Digest {
		t.Error("the digest doesn't follow the program's content")
	}
}

// A hook that hangs is killed when its time is over, and the operation is aborted.
func TestHookThatHangs(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.rehook(", outside:", `close: {command: [/bin/sleep, "1000"], timeout: 50ms, attempts: 2, pause: 1ms}`, "")
	b.arm()
	began := time.Now()
	op, err := b.operate(operation.Cutover)
	if !errors.Is(err, operation.ErrHook) || op.Step != operation.StepAborted {
		t.Errorf("%+v, %v", op, err)
	}
	if took := time.Since(began); took > 5*time.Minute { // the hook takes a quarter of an hour
		t.Errorf("it took %s", took)
	}
	if d := b.gate.Address("anna@health.example"); !d.Deliver() || d.Platform != "exchange" {
		t.Errorf("decision %+v", d)
	}
}

// The example hooks for Dovecot, called by operations: the losing side lets nobody in, the
// winning one does.
func TestOperationsCallDovecotsHooks(t *testing.T) {
	t.Parallel()
	peers.Need(t, "jq")
	deny := filepath.Join(peers.TempDir(t, "deny"), "deny")
	if err := os.WriteFile(deny, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	d := peers.StartDovecot(t, peers.DovecotOptions{First: "passdb {\n driver = passwd-file\n deny = yes\n args = " + deny + "\n}"})
	b := newBench(t)
	example := func(name string, arguments ...string) string {
		path, err := filepath.Abs(filepath.Join("../../configs/hooks", name))
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(append([]string{path, deny}, arguments...))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	b.rehook(fmt.Sprintf(`, outside: {hosts: ["%s"]}}`+"\nrouting", b.b.Addr()), fmt.Sprintf("close: {command: %s}, open: {command: %s}", example("dovecot-close", d.DoveadmCommand(t)...), example("dovecot-open")), "")
	b.arm()
	for _, kind := range []operation.Kind{operation.Cutover, operation.Rollback, operation.Cutover} {
		op, err := b.operate(kind)
		if err != nil || len(op.Hooks) != 1 || op.Hooks[0].Status != operation.HookDone {
			t.Fatalf("%s: %+v, %v", kind, op, err)
		}
		if kind == operation.Rollback {
			if got := loggedIn(t, d.IMAP, anna); !strings.HasPrefix(got, "a NO") {
				t.Errorf("after the %s a login is answered %q", kind, got)
			}
			continue
		}
		// Dovecot looks at a passwd-file once a second at most, and only closing waits for that.
		until(t, "a login after the "+string(kind), func() bool { return strings.HasPrefix(loggedIn(t, d.IMAP, anna), "a OK") })
	}
}

// loggedIn tries to log in by IMAP and returns the answer.
func loggedIn(t *testing.T, address, user string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "a LOGIN %s secret\r\n", user)
	text, err := in.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return text
}
