package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
	"mailcutover/approval"
	"mailcutover/audit"
	"mailcutover/audit/checkpoint"
	"mailcutover/identity/register"
	"mailcutover/internal/alarm"
	"mailcutover/routing"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"mailcutover": main,
	})
}

// TestCommands runs the scripts in testdata/commands, each against a node of its own,
// whose API is $MAILCUTOVER_API. Beside the usual commands of testscript there are
//
//	status CODE command...   runs a command that must end with this exit code
//	alarm KEY TEXT           raises an alarm at the node
//	spooled STATE ADDRESS    puts a message for an agency's mailbox into the spool; its transaction is $TRANSACTION
//	delivered ADDRESS        records the delivery of such a message, its platform's answer lost before; as $TRANSACTION
//	oldspool DIR NODE        makes a spool of another node, with a message in it
//	as PERSON                takes the token of anna, ben or carla for what follows
//	session ID PROTOCOL LOGIN AGENCY  lets a client be logged in
//	list AGENCY              puts the id of the agency's newest list into $LIST
//	proposal AGENCY|KIND     puts the id and the digest of the agency's, or the kind's, last proposal into $PROPOSAL and $DIGEST
func TestCommands(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/commands",
		Setup: func(env *testscript.Env) error {
			n := admintest.Start(env.T().(testing.TB), func(o *admin.Options) {
				if strings.Contains(env.WorkDir, "lists") {
					admintest.Directory(env.T().(testing.TB), 3, o.Replica.State, o)
				}
				if strings.Contains(env.WorkDir, "wave") {
					admintest.Plan(env.T().(testing.TB), o)
				}
				o.Lab = strings.Contains(env.WorkDir, "lab")
				if strings.Contains(env.WorkDir, "audit") {
					o.Checkpoints = signing(env, o)
				}
				if strings.Contains(env.WorkDir, "required") {
					o.Approval = "required"
					o.Lab = !strings.Contains(env.WorkDir, "lists") // where agencies are added at once
				}
			})
			env.Values["node"], env.Values["t"] = n, env.T()
			token := filepath.Join(env.WorkDir, "token")
			env.Setenv(envAPI, n.URL)
			env.Setenv(envTokenFile, token)
			env.Setenv("GORACE", "atexit_sleep_ms=0") // else each command takes a second more
			env.Setenv("ESCAPE", "\x1b[2Jcleared")
			return os.WriteFile(token, []byte(admintest.Anna+"\n"), 0o600)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"alarm": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Value("node").(*admintest.Node).Alarms.Raise(args[0], args[1])
			},
			"status":    status,
			"spooled":   spooled,
			"delivered": delivered,
			"copied":    copied,
			"oldspool":  oldSpool,
			"as":        as,
			"proposal":  proposal,
			"list":      newestList,
			"session": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Value("node").(*admintest.Node).Sessions.Add(admin.Session{
					ID: args[0], Protocol: args[1], Login: args[2], Agency: args[3], Platform: admintest.Source, State: "joined", Client: "192.0.2.7:4711",
					Mailbox: "6b1f2ad0-3c4e-4f5a-8b6c-7d8e9fa0b1c2", Epoch: "1.1", Listener: "imap", Since: time.Now(), FromClient: 1000, FromPlatform: 2 << 20,
				})
			},
		},
	})
}

// signing signs the node's audit log with the key that the script makes.
func signing(env *testscript.Env, o *admin.Options) admin.Checkpoints {
	t := env.T().(testing.TB)
	book, err := checkpoint.OpenBook(filepath.Join(env.WorkDir, "book"))
	if err != nil {
		t.Fatal(err)
	}
	return checkpoint.NewKeeper(checkpoint.Options{Log: o.Audit.(*audit.Log), Book: book, Alarms: o.Alarms.(*alarm.Set), Settings: func() checkpoint.Settings {
		k, err := checkpoint.ReadKey(filepath.Join(env.WorkDir, "audit.key"))
		if err != nil {
			k = nil // not made yet
		}
		return checkpoint.Settings{Key: k, Records: 100, Every: time.Hour}
	}})
}

// as takes somebody's token.
func as(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(envTokenFile, "")
	ts.Setenv(envToken, map[string]string{"anna": admintest.Anna, "ben": admintest.Ben, "carla": admintest.Carla}[args[0]])
}

// proposal finds the last proposal for an agency, or of a kind.
func proposal(ts *testscript.TestScript, _ bool, args []string) {
	all, unreadable := approval.List(ts.Value("node").(*admintest.Node).Replica.State())
	if len(unreadable) > 0 {
		ts.Fatalf("%v", unreadable)
	}
	for _, p := range all {
		if string(p.Agency) == args[0] || p.Kind == args[0] {
			ts.Setenv("PROPOSAL", p.ID)
			ts.Setenv("DIGEST", p.Digest().String())
		}
	}
}

// newestList finds the newest list of an agency.
func newestList(ts *testscript.TestScript, _ bool, args []string) {
	entries, unreadable := register.Lists(ts.Value("node").(*admintest.Node).Replica.State(), routing.AgencyID(args[0]))
	if len(entries) == 0 || len(unreadable) > 0 {
		ts.Fatalf("%d lists, %v", len(entries), unreadable)
	}
	ts.Setenv("LIST", entries[0].List.ID)
}

// status runs a command and compares its exit code.
func status(ts *testscript.TestScript, _ bool, args []string) {
	want, err := args[0], error(nil)
	if err = ts.Exec(args[1], args[2:]...); err == nil {
		ts.Fatalf("exit code 0, want %s", want)
	}
	if got := strings.TrimPrefix(err.Error(), "exit status "); got != want {
		ts.Fatalf("%v, want exit status %s", err, want)
	}
}

// A command line never ends in a panic, and without arguments it helps.
func TestNothingToDo(t *testing.T) {
	var out, errs strings.Builder
	if code := run(context.Background(), []string{}, strings.NewReader(""), &out, &errs); code != exitDone || !strings.Contains(out.String(), "Exit codes") || errs.Len() != 0 {
		t.Errorf("code %d, %q, %q", code, out.String(), errs.String())
	}
}
