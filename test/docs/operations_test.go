package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// told is a command on a page below docs/operations, which shows it for reference: indented,
// among settings and what is printed.
type told struct {
	page, command string
	line          int
}

var (
	toldLine    = regexp.MustCompile(`^ {4}(?:sudo )?(mailcutover .*)$`)
	toldComment = regexp.MustCompile(`\s+# .*$`)
	shownTime   = regexp.MustCompile(`(--since|--from) '2026-[^']*'`)
	shownUntil  = regexp.MustCompile(`(--until|--to) '2026-[^']*'`)
)

// reason is the beginning of a command, behind its page, and why it isn't run.
type reason struct{ command, why string }

// notRun are commands of these pages that TestPages can't run, or has run on another page, and
// why.
var notRun = []reason{
	{"api.md: mailcutover agency cutover health --reason 'wave 3'", "docs/tutorial.md runs it: it proposes and starts, by two people"},
	{"api.md: mailcutover operation ", "docs/tutorial.md runs it: it takes what was proposed"},
	{"api.md: mailcutover session show ", "it takes a mail program that is logged in; test/e2e has some"},
	{"api.md: mailcutover audit verify ", "docs/operations/audit.md has it whole"},
	{"api.md: mailcutover directory ", "it takes a directory: docs/howto/first-list.md"},
	{"api.md: mailcutover list ", "it takes a directory: docs/howto/first-list.md"},
	{"api.md: mailcutover mailbox import ", "it shows names of files only: docs/tutorial.md imports a list, and remaps are in cmd/mailcutover's scripts"},
	{"api.md: mailcutover agency add ", "the agency is there; docs/tutorial.md adds it"},
	{"api.md: mailcutover mailbox release ", "it takes two who claim a name: cmd/mailcutover's scripts"},
	{"api.md: mailcutover spool adopt ", "it takes a node that is gone: cmd/mailcutover's scripts"},
	{"backup.md: mailcutover restore ", "it takes a table that lost everything: rollback/control and admin"},
	{"backup.md: mailcutover backup verify table.ndjson", "it is the other person's copy of the same file"},
	{"hooks.md: mailcutover directory ", "it takes a directory: docs/howto/first-list.md"},
	{"install.md: ", "it takes the package, installed: test/packages"},
	{"lists.md: mailcutover demo ", "it takes half a minute: demo has a test"},
	{"lists.md: ", "it takes a directory: docs/howto/first-list.md"},
	{"notices.md: mailcutover notice test ", "it takes a receiver: test/e2e"},
	{"plan.md: mailcutover wave propose ", "docs/howto/first-wave.md runs it"},
	{"plan.md: mailcutover operation approve ", "docs/howto/first-wave.md runs it"},
	{"plan.md: mailcutover wave start ", "docs/howto/first-wave.md runs it"},
	{"plan.md: mailcutover wave show ", "docs/howto/first-wave.md runs it"},
	{"plan.md: mailcutover wave answer ", "docs/howto/first-wave.md runs it"},
	{"plan.md: mailcutover wave lift ", "docs/howto/first-wave.md runs it"},
	{"recall.md: mailcutover recall accept ", "it takes messages that can't be brought: rollback/recall/desk and admin"},
	{"rehearsal.md: mailcutover rehearse --agency ", "it takes half a minute: demo"},
	{"rehearsal.md: mailcutover rehearse show ", "it takes a rehearsal's record: cmd/mailcutover's scripts"},
	{"three-nodes.md: mailcutover node drain ", "docs/howto/add-node.md runs it"},
	{"verify.md: mailcutover verify stop ", "it takes a comparison that is under way: rollback/verify/desk"},
	{"verify.md: mailcutover verify messages ", "it takes a finding: test/e2e"},
	{"verify.md: mailcutover verify mark ", "it takes a finding: test/e2e"},
}

// before and after are what some commands need around them, as the page says in words.
var (
	before = map[string]string{
		"mailcutover audit verify audit.log --key": "rm audit.log && mailcutover audit export --out audit.log",
		"mailcutover agency cutover":               "mailcutover agency arm health --reason again",
		"mailcutover recall run":                   "until mailcutover recall status --agency health --watch; do sleep 0.1; done",
	}
	after = map[string]string{
		"mailcutover audit key new --out /etc/mailcutover/audit.key": `printf 'audit: {signing_key_file: %s/audit.key}\n' "$PWD" >> ../node.yaml && mailcutover config reload --reason signed && mailcutover audit checkpoint`,
	}
)

// tellers returns the commands of the pages below docs/operations, in the order of the pages.
// The runbook's stand in its sentences, and each is for a bad night: runRunbook has those.
func tellers(t *testing.T, root string) []told {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, "docs/operations/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	var all []told
	for _, name := range names {
		page := filepath.Base(name)
		if page == "runbook.md" {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for line := range strings.Lines(string(text)) {
			n++
			if m := toldLine.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil {
				all = append(all, told{page, toldComment.ReplaceAllString(m[1], ""), n})
			}
		}
	}
	return all
}

// runOperations runs the commands of docs/operations, but for those of notRun, against a lab.
// Each page has a directory of its own.
func runOperations(t *testing.T, root, bin string) {
	s := newSetup(t, root, bin)
	writeMailboxes(t, s, "1s", "")
	sh := newShell(t, page{name: "docs/operations", ports: []string{"2525", "8025"}}, *s)
	here := enterLab(t, sh)
	used, ran := make([]bool, len(notRun)), 0
	for _, one := range tellers(t, root) {
		not := slices.IndexFunc(notRun, func(not reason) bool { return strings.HasPrefix(one.page+": "+one.command, not.command) })
		if not >= 0 {
			used[not] = true
			continue
		}
		script := fmt.Sprintf("mkdir -p %[1]s; cd %[1]s\n%s%s\n%s", quote(filepath.Join(s.home, one.page+".d")),
			around(before, one.command), here(one.command), around(after, one.command))
		if printed, err := sh.once(block{script: script}); err != nil {
			t.Fatalf("docs/operations/%s:%d: %q ends with %v, and prints\n%s", one.page, one.line, script, err, printed)
		}
		ran++
	}
	runRunbook(t, sh, root, s.home, here)
	if ran < 40 {
		t.Errorf("only %d commands were found", ran)
	}
	for i, not := range notRun {
		if !used[i] {
			t.Errorf("no page has a command %q any more, which isn't run because %s", not.command, not.why)
		}
	}
}

// around returns what is run before or after a command.
func around(scripts map[string]string, command string) string {
	for begin, script := range scripts {
		if strings.HasPrefix(command, begin) {
			return script + "\n"
		}
	}
	return ""
}

// enterLab starts the lab's node and lets happen what the lab is about. The function that it
// returns puts the lab's ids, names and times in the place of a page's.
func enterLab(t *testing.T, sh *shell) (here func(command string) string) {
	t.Helper()
	if err := sh.background("the lab", block{script: "mailcutover serve --config node.yaml"}, []string{`..."msg":"node serves"...`}); err != nil {
		t.Fatal(err)
	}
	find := func(script, id string) string {
		t.Helper()
		printed, err := sh.once(block{script: script})
		found := regexp.MustCompile(id).FindString(printed)
		if err != nil || found == "" && id != "" {
			t.Fatalf("the lab: %q ends with %v, and prints\n%s", script, err, printed)
		}
		return found
	}
	find(lab, "")
	run := find("mailcutover recall list --agency health", `health-[0-9a-f]{8}\S*`)
	transaction := find("mailcutover retained list --agency health", `\b[0-9a-v]{26}\b`)
	names := strings.NewReplacer("/etc/mailcutover/", "./", "/var/backups/mailcutover/", "./", "~/", "./", "anna@", "dora@", "--reason ...", "--reason test",
		"health-8c1f7a52", run, "TRANSACTION", transaction, "06gvvn9l59o0b22mcpgh6g666c", transaction, "DIRECTORY", "texts", "4711@out.example", "drill@out.example")
	return func(command string) string {
		return shownTime.ReplaceAllString(names.Replace(command), "$1 1d") + shownEnd(command)
	}
}

// shownEnd ends a span of time now, wherever the page ends it.
func shownEnd(command string) string {
	if m := shownUntil.FindStringSubmatch(command); m != nil {
		return " " + m[1] + " 0m" // the last one of a flag counts
	}
	return ""
}

// lab is what has happened in the lab: an agency was cut over and brought back, with mail in
// each place, and its recall is done.
const lab = `mailcutover agency add health --source exchange --target ox --domain health.example --reason drill
cat > list.csv <<END
address,directory_id,agency,kind,aliases,logins,source_address,source_login,target_address,target_login,platform
dora@health.example,6b1f2ad0-3c4e-4f5a-8b6c-7d8e9fa0b1c2,health,user,,,,,,,
END
mailcutover mailbox import list.csv --reason drill
printf 'Subject: drill\nMessage-ID: <drill@out.example>\n\nhello\n' > hello.eml
curl -sS smtp://127.0.0.1:2525 --mail-from somebody@elsewhere.example --mail-rcpt dora@health.example -T hello.eml
mailcutover agency arm health --reason drill
# Dovecot numbers an INBOX by the second in which it is made; of one second, the two clash.
made=$(date +%s); until test "$(date +%s)" != "$made"; do sleep 0.1; done
mailcutover agency cutover health --reason drill
# Put off if the table is too slow to say that the armed agency is where it was.
until curl -sS smtp://127.0.0.1:2525 --mail-from somebody@elsewhere.example --mail-rcpt dora@health.example -T hello.eml; do sleep 0.1; done
mailcutover agency rollback health --reason drill
until mailcutover recall status --agency health --watch; do sleep 0.1; done
`
