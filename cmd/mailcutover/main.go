// Command mailcutover runs a node, and has the operator's commands that talk to one.
//
// The commands are a thin client of the node's HTTP API (package admin); each says what
// it changed, what undoes it, and on an error what to do next. What they print and how
// they end is for people and scripts alike: tables or --json on standard output, all
// else on standard error, and one of these exit codes:
//
//	0  done
//	1  failed, or refused by the node
//	2  the command line is wrong; nothing was sent
//	3  the node can't be reached, or didn't answer; look before you repeat it
//	4  a precondition isn't met: somebody else was faster, or the phase is another
//	5  the node doesn't know the token, or doesn't allow the call
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"mailcutover/admin"
	"mailcutover/internal/config"
)

// Exit codes; the package's page says when.
const (
	exitDone = iota
	exitFailed
	exitUsage
	exitUnreachable
	exitPrecondition
	exitNotAllowed
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run carries out one command line and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	started := false
	noteStart(root, &started)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !started {
		err = &usageError{err: onOneLine(err), command: cmd.CommandPath()}
	}
	if err != nil {
		noColor, _ := root.PersistentFlags().GetBool("no-color") // it is there
		printError(stderr, err, isTerminal(stderr) && !noColor && os.Getenv("NO_COLOR") == "")
	}
	return exitCode(err)
}

// newRootCommand returns the whole tree of commands.
func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "mailcutover",
		Short: "Moves the mail of agencies between two platforms, and back",
		Long: "mailcutover stands in front of two mail platforms and sends each message to the one\n" +
			"that holds the mailbox now. serve runs a node; the other commands talk to one.\n\n" +
			"Exit codes: 0 done, 1 failed or refused, 2 wrong command line, 3 node unreachable,\n" +
			"4 precondition not met, 5 not allowed.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c := newConnection(root)
	root.AddCommand(newServeCommand(), newDemoCommand(c),
		newAgencyCommand(c), newMailboxCommand(c), newListCommand(c), newDirectoryCommand(c), newRouteCommand(c), newSessionCommand(c), newOperationCommand(c),
		newWaveCommand(c), newRecallCommand(c), newRehearseCommand(c), newCanaryCommand(c), newVerifyCommand(c), newEmergencyCommand(c), newNodeCommand(c), newAuditCommand(c),
		newAlarmCommand(c), newTableCommand(c), newBackupCommand(c), newRestoreCommand(c), newSpoolCommand(c), newTraceCommand(c), newLedgerCommand(c), newRetainedCommand(c), newNoticeCommand(c), newIncidentCommand(c),
		newConfigCommand(c), newTokenCommand(c), newHealthCommand(c), newSupportCommand(c), newVersionCommand(c), newManCommand(root))
	return root
}

// noteStart sets started when a command's own code begins: errors before that are about
// the command line.
func noteStart(cmd *cobra.Command, started *bool) {
	if cmd.Args != nil {
		argumentsOf(cmd)
	}
	if runE := cmd.RunE; runE != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*started = true
			return runE(cmd, args)
		}
	} else if cmd.HasSubCommands() && cmd.HasParent() {
		// Cobra would print help and succeed on "agency sow".
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q for %q%s", args[0], cmd.CommandPath(), suggestion(cmd, args[0]))
			}
			return errors.New("which one? " + strings.Join(names(cmd), ", "))
		}
	}
	for _, sub := range cmd.Commands() {
		noteStart(sub, started)
	}
}

// argumentsOf says of a wrong number of arguments what the command wants instead.
func argumentsOf(cmd *cobra.Command) {
	count := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		err := count(cmd, args)
		if err == nil || cmd.HasSubCommands() {
			return err
		}
		given := "no argument is"
		if len(args) > 0 {
			given = fmt.Sprintf("%q are", args)
			if len(args) == 1 {
				given = fmt.Sprintf("%q is", args[0])
			}
		}
		return fmt.Errorf("%s given; want: %s", given, strings.TrimSuffix(cmd.UseLine(), " [flags]"))
	}
}

// onOneLine puts what Cobra suggests for a word that it doesn't know behind it, as for the
// commands within a command.
func onOneLine(err error) error {
	wrong, meant, ok := strings.Cut(err.Error(), "\n\nDid you mean this?\n")
	if !ok {
		return err
	}
	return fmt.Errorf("%s, did you mean %s?", wrong, strings.Join(strings.Fields(meant), " or "))
}

func names(cmd *cobra.Command) []string {
	var out []string
	for _, sub := range cmd.Commands() {
		out = append(out, sub.Name())
	}
	return out
}

func suggestion(cmd *cobra.Command, word string) string {
	if cmd.SuggestionsMinimumDistance == 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	if s := cmd.SuggestionsFor(word); len(s) > 0 {
		return ", did you mean " + strings.Join(s, " or ") + "?"
	}
	return ""
}

// usageError is a command line that can't be carried out.
type usageError struct {
	err     error
	command string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// hintError is an error with what to do about it.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }

// withHint adds what to do to an error.
func withHint(err error, hint string) error { return &hintError{err: err, hint: hint} }

// exitCode says how the program ends.
func exitCode(err error) int {
	if err == nil {
		return exitDone
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	if errors.Is(err, admin.ErrUnreachable) {
		return exitUnreachable
	}
	if p, ok := errors.AsType[*admin.Problem](err); ok {
		switch p.Status {
		case http.StatusConflict, http.StatusPreconditionFailed, http.StatusPreconditionRequired:
			return exitPrecondition
		case http.StatusUnauthorized, http.StatusForbidden:
			return exitNotAllowed
		}
	}
	return exitFailed
}

// printError prints an error, what is wrong one by one, and the hint on a line of its own.
func printError(w io.Writer, err error, color bool) {
	label := "error:"
	if color {
		label = "\x1b[31merror:\x1b[0m"
	}
	fmt.Fprintf(w, "%s %s\n", label, printable(err.Error()))
	hint := ""
	if p, ok := errors.AsType[*admin.Problem](err); ok {
		for _, d := range p.Errors {
			if d.Where != "" {
				fmt.Fprintf(w, "  %s: %s\n", printable(d.Where), printable(d.Message))
			} else {
				fmt.Fprintf(w, "  %s\n", printable(d.Message))
			}
		}
		hint = p.Hint
		if p.Status == http.StatusInternalServerError && p.Request != "" {
			hint += ": " + p.Request
		}
	}
	if errors.Is(err, admin.ErrUnreachable) {
		hint = "is it running, and is the address right? --api says which; "
		if o, ok := errors.AsType[*net.OpError](err); ok && o.Op == "dial" {
			hint += "nothing was sent"
		} else {
			hint += "a change may have happened all the same"
		}
	}
	if _, ok := errors.AsType[config.Problems](err); ok {
		hint = "correct that; mailcutover config check FILE says all that is wrong with a file"
	}
	if h, ok := errors.AsType[*hintError](err); ok {
		hint = h.hint
	}
	if u, ok := errors.AsType[*usageError](err); ok && hint == "" {
		hint = u.command + " --help"
	}
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", printable(hint))
	}
}

// version returns that of this program.
func version() admin.Version {
	v := admin.Version{Version: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Version, v.Go = info.Main.Version, info.GoVersion
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v.Revision = s.Value
		}
	}
	return v
}
