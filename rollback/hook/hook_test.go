package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailcutover/routing"
)

// boxes returns mailboxes 1 to n.
func boxes(n int) []Mailbox {
	list := make([]Mailbox, n)
	for i := range list {
		list[i] = Mailbox{
			ID: routing.MailboxID{15: byte(i + 1)}, Address: routing.Address(fmt.Sprintf("box%d@ox.example", i+1)),
			Login: fmt.Sprintf("box%d", i+1),
		}
	}
	return list
}

// script writes a shell script that sees each mailbox's line as $line, its id as $id, and
// the first line as $head.
func script(t *testing.T, before, each, after string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hook")
	text := `#!/bin/sh
read -r head
` + before + `
while read -r line; do
  id=${line#*:?}; id=${id%%'"'*}
  ` + each + `
done
` + after + "\n"
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return []string{path}
}

const ok = `echo "{\"mailbox\":\"$id\",\"ok\":true}"`

func command(argv []string) *Hook {
	return &Hook{Platform: "ox", Kind: Close, Command: argv, Pause: time.Millisecond, Timeout: 10 * time.Minute}
}

func TestEachMailboxIsAnswered(t *testing.T) {
	dir := t.TempDir()
	h := command(script(t, `echo "$head" > `+dir+`/head; env > `+dir+`/env; pwd > `+dir+`/pwd`, `echo "$line" >> `+dir+`/lines; `+ok, ""))
	t.Setenv("SECRET_OF_THE_NODE", "hunter2")
	r, err := h.Run(t.Context(), Call{Operation: "op-1", Agency: "health", Mailboxes: boxes(3)})
	if err != nil || r.Done != 3 || r.Attempts != 1 || len(r.Failed) != 0 || r.Ended.Before(r.Started) {
		t.Fatalf("%+v, %v", r, err)
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if want := `{"hook":"close","operation":"op-1","agency":"health","platform":"ox","attempt":1,"mailboxes":3}` + "\n"; read("head") != want {
		t.Errorf("first line %q, want %q", read("head"), want)
	}
	var first Mailbox
	if err := json.Unmarshal([]byte(strings.Split(read("lines"), "\n")[0]), &first); err != nil || first != boxes(1)[0] {
		t.Errorf("first mailbox %+v, %v", first, err)
	}
	if env := read("env"); strings.Contains(env, "hunter2") || !strings.Contains(env, "MAILCUTOVER_AGENCY=health") {
		t.Errorf("environment: %s", env)
	}
	if read("pwd") != "/\n" {
		t.Errorf("working directory %q", read("pwd"))
	}
}

func TestWhatFailedIsAskedAgainAlone(t *testing.T) {
	dir := t.TempDir()
	h := command(script(t, `echo "$head" >> `+dir+`/heads`, `case $line in
  *box2*) if [ -e `+dir+`/seen ]; then `+ok+`; else : > `+dir+`/seen; echo "{\"mailbox\":\"$id\",\"ok\":false,\"error\":\"busy\"}"; fi;;
  *) `+ok+`;;
  esac`, ""))
	r, err := h.Run(t.Context(), Call{Agency: "health", Mailboxes: boxes(3)})
	if err != nil || r.Done != 3 || r.Attempts != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	heads, _ := os.ReadFile(filepath.Join(dir, "heads"))
	if s := string(heads); !strings.Contains(s, `"attempt":1,"mailboxes":3`) || !strings.Contains(s, `"attempt":2,"mailboxes":1`) {
		t.Errorf("questions:\n%s", s)
	}
}

// A mailbox is done only if the hook said so and ended well.
func TestNothingIsTakenForDone(t *testing.T) {
	for name, test := range map[string]struct {
		argv []string
		text string
		done int
	}{
		"silence":              {script(t, "", ":", ""), "the hook said nothing about it", 0},
		"one left out":         {script(t, "", `case $line in *box2*) ;; *) `+ok+`;; esac`, ""), "the hook said nothing about it", 2},
		"refused":              {script(t, "", `echo "{\"mailbox\":\"$id\",\"ok\":false}"`, ""), "didn't say why", 0},
		"bad status":           {script(t, "", ok, "echo 'no such host' >&2; exit 3"), "exit status 3", 0},
		"not JSON":             {script(t, "", "echo done", ""), "line 1 of the answer", 0},
		"another mailbox":      {script(t, "", `echo '{"mailbox":"6b1f2ad0-3c4e-4f5a-8b6c-7d8e9fa0b1c2","ok":true}'`, ""), "nobody asked", 0},
		"both":                 {script(t, "", ok+`; echo "{\"mailbox\":\"$id\",\"ok\":false}"`, ""), "done and not done", 0},
		"something after JSON": {script(t, "", `echo "{\"mailbox\":\"$id\",\"ok\":true} {}"`, ""), "line 1 of the answer", 0},
		"no such program":      {[]string{"/nowhere/hook"}, "no such file", 0},
		"endless answer":       {[]string{"/usr/bin/yes"}, "answer is larger than 64 MiB", 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := command(test.argv)
			h.Attempts = 2
			r, err := h.Run(t.Context(), Call{Agency: "health", Mailboxes: boxes(3)})
			if !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("error %v, want %q", err, test.text)
			}
			if r.Done != test.done || len(r.Failed) != 3-test.done || r.Attempts != 2 {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestAHookThatHangsIsKilledWithItsChildren(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := command(script(t, `sleep 600 & echo $! > `+dir+`/child; wait`, ":", ""))
	h.Timeout, h.Attempts = 5*time.Second, 1 // the script has begun before
	began := time.Now()
	_, err := h.Run(t.Context(), Call{Agency: "health", Mailboxes: boxes(1)})
	if !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "no end within 5s") {
		t.Errorf("error %v", err)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("took %s", took)
	}
	pid, err := os.ReadFile(filepath.Join(dir, "child"))
	if err != nil {
		t.Fatal(err)
	}
	stat := "/proc/" + strings.TrimSpace(string(pid)) + "/stat"
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(stat)
		if err != nil || strings.Contains(string(b), ") Z ") {
			break // gone, or killed and not yet buried
		}
		if time.Now().After(end) {
			t.Fatalf("the hook's child %s lives", pid)
		}
	}
}

func TestAnInterruptedRunSaysSo(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	h := command(script(t, "", ":", ""))
	h.Pause, h.Attempts = time.Hour, 5
	reason := errors.New("the operation is aborted")
	time.AfterFunc(100*time.Millisecond, func() { cancel(reason) })
	if _, err := h.Run(ctx, Call{Mailboxes: boxes(1)}); !errors.Is(err, reason) {
		t.Errorf("error %v", err)
	}
}

func TestURL(t *testing.T) {
	var authorization string
	answer := func(w http.ResponseWriter, r *http.Request) {
		authorization = r.Header.Get("Authorization")
		body, _ := io.ReadAll(r.Body)
		for line := range strings.Lines(string(body)) {
			var m Mailbox
			if json.Unmarshal([]byte(line), &m) == nil && m.Address != "" {
				fmt.Fprintf(w, "{\"mailbox\":%q,\"ok\":true}\n", m.ID)
			}
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/good", answer)
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/good", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/broken", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusBadGateway); answer(w, r) })
	server := httptest.NewServer(mux)
	defer server.Close()
	for path := range map[string]bool{"/good": true, "/none": true} { // whatever it answers is as good
		h := &Hook{Platform: "ox", Kind: Open, URL: server.URL + path + "?key=hunter2", Token: "token-1"}
		if err := h.Answers(t.Context()); err != nil || authorization != "" {
			t.Errorf("%s: %v, authorization %q", path, err, authorization)
		}
	}
	for path, want := range map[string]string{"/good": "", "/moved": "307", "/broken": "502", "/none": "404"} {
		h := &Hook{Platform: "ox", Kind: Open, URL: server.URL + path + "?key=hunter2", Token: "token-1", Attempts: 1, Pause: time.Millisecond}
		r, err := h.Run(t.Context(), Call{Mailboxes: boxes(2)})
		if want == "" {
			if err != nil || r.Done != 2 || authorization != "Bearer token-1" {
				t.Errorf("%s: %+v, %v; authorization %q", path, r, err, authorization)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) || r.Done != 0 {
			t.Errorf("%s: %+v, %v; want %s", path, r, err, want)
		}
	}
	gone := &Hook{Platform: "ox", Kind: Open, URL: "http://127.0.0.1:1/?key=hunter2", Attempts: 1}
	if _, err := gone.Run(t.Context(), Call{Mailboxes: boxes(1)}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("an unreachable URL: %v", err)
	}
	if err := gone.Answers(t.Context()); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("an unreachable URL answers: %v", err)
	}
}

// A plan, which many people read, shows where a hook goes and no secret.
func TestAPlanShowsNoSecret(t *testing.T) {
	s := step{do: &Hook{Platform: "ox", Kind: Open, URL: "https://svc:hunter2@hooks.example:8443/open?key=hunter2#hunter2", Token: "hunter2", Attempts: 3, Timeout: time.Minute}}
	if got := s.Describe(); strings.Contains(got, "hunter2") || !strings.Contains(got, "https://hooks.example:8443/open;") {
		t.Errorf("it shows %q", got)
	}
}

func TestCheck(t *testing.T) {
	program := script(t, "", "", "")
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	open := script(t, "", "", "")
	if err := os.Chmod(open[0], 0o777); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		hook Hook
		want string
	}{
		"command":           {Hook{Kind: Close, Command: program}, ""},
		"https":             {Hook{Kind: Open, URL: "https://hooks.example/open"}, ""},
		"http to this host": {Hook{Kind: Open, URL: "http://127.0.0.1:8080/open"}, ""},
		"http":              {Hook{Kind: Open, URL: "http://hooks.example/open"}, "want https"},
		"unknown kind":      {Hook{Kind: "shut", Command: program}, "want one of"},
		"neither":           {Hook{Kind: Close}, "one of them"},
		"both":              {Hook{Kind: Close, Command: program, URL: "https://x/"}, "one of them"},
		"relative":          {Hook{Kind: Close, Command: []string{"hook"}}, "whole path"},
		"missing":           {Hook{Kind: Close, Command: []string{"/nowhere/hook"}}, "no such file"},
		"no program":        {Hook{Kind: Close, Command: []string{plain}}, "may be run"},
		"open to everybody": {Hook{Kind: Close, Command: open}, "written by everybody"},
	} {
		err := test.hook.Check()
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

// A plan sees that a program has gone since the settings were read.
func TestAProgramThatIsGoneIsSeen(t *testing.T) {
	there, gone := command(script(t, "", ":", "")), command(script(t, "", ":", ""))
	if err := os.Remove(gone.Command[0]); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		do, undo *Hook
		ok       bool
	}{{there, nil, true}, {there, there, true}, {gone, there, false}, {there, gone, false}} {
		if err := (&step{do: test.do, undo: test.undo}).Callable(t.Context()); (err == nil) != test.ok {
			t.Errorf("%v, undone by %v: %v", test.do, test.undo, err)
		}
	}
}

func TestEveryHookCanBeUndone(t *testing.T) {
	for _, k := range Kinds() {
		if u := k.Undo(); u == "" || u == k || u.Undo() != k {
			t.Errorf("%s is undone by %q", k, u)
		}
	}
}
