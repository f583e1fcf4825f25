package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// server is a process of the server under test, which the environment names in SERVER.
type server struct {
	url string
	// Where WebSocket connects, if the configuration opens that.
	ws      string
	process *exec.Cmd
	folder  string
	log     string
}

// start runs the server with a configuration and waits until it lists its ports.
func start(config string) *server {
	folder := must(os.MkdirTemp(os.Getenv("SCENARIO_DIR"), "server-"))
	s := &server{folder: folder, log: filepath.Join(folder, "server.log")}
	s.process = exec.Command(os.Getenv("SERVER"), "-c", s.configure(config), "--ports_file_dir", folder, "-l", s.log, "-D")
	// The server goes when this program goes, however that ends.
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.process.Stderr = os.Stderr
	ok(s.process.Start())
	within(90*time.Second, "the server lists its ports", func() bool {
		files, _ := filepath.Glob(filepath.Join(folder, "*.ports"))
		if len(files) == 0 {
			return false
		}
		var ports struct{ Nats, WebSocket []string }
		bytes, _ := os.ReadFile(files[0])
		if json.Unmarshal(bytes, &ports) != nil || len(ports.Nats) == 0 {
			return false
		}
		s.url = ports.Nats[0]
		if len(ports.WebSocket) > 0 {
			s.ws = ports.WebSocket[0]
		}
		return true
	})
	running = append(running, s)
	return s
}

var running []*server

// configure writes the configuration and gives its file.
func (s *server) configure(config string) string {
	file := filepath.Join(s.folder, "server.conf")
	config = "listen: 127.0.0.1:-1\nserver_name: auth\n" + strings.ReplaceAll(config, "FOLDER", s.folder)
	ok(os.WriteFile(file, []byte(config), 0o600))
	return file
}

// reload has the server read another configuration.
func (s *server) reload(config string) { s.reread(config, "Reloaded server configuration") }

// refuses has the configuration read again, which changes nothing.
func (s *server) refuses(config string) { s.reread(config, "Failed to reload server configuration") }

func (s *server) reread(config, said string) {
	count := func() int { return strings.Count(string(must(os.ReadFile(s.log))), said) }
	before := count()
	s.configure(config)
	ok(s.process.Process.Signal(syscall.SIGHUP))
	eventually("the configuration is read again", func() bool { return count() > before })
}

// stop ends the server in good order.
func (s *server) stop() {
	ok(s.process.Process.Signal(syscall.SIGTERM))
	done := make(chan error, 1)
	go func() { done <- s.process.Wait() }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		panic("the server does not end")
	}
}

// complain shows the logs of all servers.
func complain() {
	for _, s := range running {
		bytes, _ := os.ReadFile(s.log)
		lines := strings.Split(string(bytes), "\n")
		os.Stderr.WriteString(strings.Join(lines[max(0, len(lines)-60):], "\n"))
	}
}
