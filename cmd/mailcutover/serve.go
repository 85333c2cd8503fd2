package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"mailcutover/internal/config"
	"mailcutover/internal/daemon"
	"mailcutover/internal/systemd"
	"mailcutover/routing/redistable"
)

// drainGrace is how long transactions under way may take at a stop.
const drainGrace = 30 * time.Second

// newServeCommand runs a node until SIGTERM or SIGINT; SIGHUP reloads the configuration.
func newServeCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run a node",
		Long: "Run a node until SIGTERM or SIGINT, which drain it for up to " + drainGrace.String() + "; a second one\n" +
			"ends it at once. SIGHUP reads the configuration again. The log goes to standard error.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), path, cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "configuration file")
	_ = cmd.MarkFlagRequired("config")
	return cmd
}

func serve(ctx context.Context, path string, stderr io.Writer) error {
	cfg, err := config.Load(path, os.Environ())
	if err != nil {
		return fmt.Errorf("configuration %s:\n%w", path, err)
	}
	logger, level := newLogger(cfg, stderr)
	redistable.LogClient(logger)
	for _, w := range cfg.Warnings {
		logger.Warn("configuration", "key", w.Key, "value", w.Value, "want", w.Want, "hint", w.Hint)
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)

	manager, err := systemd.New(os.LookupEnv, os.Getpid())
	if err != nil {
		logger.Warn("service manager is not told how the node is", "error", err)
	}
	defer manager.Close()
	told := func(err error) {
		if err != nil {
			logger.Warn("service manager is not told how the node is", "error", err)
		}
	}
	d, err := daemon.Start(ctx, cfg, daemon.Options{Logger: logger, Level: level, Environ: os.Environ(), Version: version()})
	if err != nil {
		return err
	}
	told(manager.Ready("the node runs; mailcutover health --ready says whether it takes mail"))
	var alive <-chan time.Time // nil: nobody watches
	if every := manager.Interval(); every > 0 {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		alive = ticker.C
	}
	for running := true; running; {
		select {
		case <-alive:
			told(manager.Alive())
		case err = <-d.Failed():
			running = false
		case s := <-signals:
			if s == syscall.SIGHUP {
				told(manager.Reloading(systemd.Monotonic()))
				status := "settings read again"
				if _, err := d.Reload(ctx); err != nil {
					logger.Error("configuration not reloaded", "error", err)
					status = "settings not taken over: the log says why"
				}
				told(manager.Ready(status))
				continue
			}
			logger.Info("signal received", "signal", s.String())
			running = false
		}
	}
	told(manager.Stopping("drains for up to " + drainGrace.String()))
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainGrace)
	defer cancel()
	var impatient sync.WaitGroup
	impatient.Go(func() {
		for {
			select {
			case <-alive: // the watchdog goes on until the end
				told(manager.Alive())
			case s := <-signals:
				if s != syscall.SIGHUP {
					cancel()
				}
			case <-grace.Done():
				return
			}
		}
	})
	stopped := d.Shutdown(grace)
	cancel()
	impatient.Wait()
	if errors.Is(stopped, context.DeadlineExceeded) || errors.Is(stopped, context.Canceled) {
		logger.Warn("transactions were cut at the end of the grace period")
		stopped = nil
	}
	return errors.Join(err, stopped)
}

// newLogger returns the node's log, and its level for reloads.
func newLogger(cfg *config.Config, w io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(cfg.Log.Level.Slog())
	o := &slog.HandlerOptions{Level: level}
	if cfg.Log.Format == config.FormatText {
		return slog.New(slog.NewTextHandler(w, o)), level
	}
	return slog.New(slog.NewJSONHandler(w, o)), level
}
