package main

import (
	"bytes"
	"io"
	"os"

	"github.com/go-logr/logr"
	"github.com/sirupsen/logrus"
	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/klog/v2/textlogger"
)

// Kubernetes' text format without the informational lines, of which there are hundreds at each start.
const quietFormat = "quiet"

func setUpLogging(verbosity int, secrets redactor) error {
	// Two commands in one process apply the same configuration.
	logsapi.ReapplyHandling = logsapi.ReapplyHandlingIgnoreUnchanged
	logrus.SetOutput(secrets.writer(os.Stderr))
	logrus.SetLevel(logrus.WarnLevel)
	if verbosity > 0 {
		logrus.SetLevel(logrus.InfoLevel)
	}
	return logsapi.RegisterLogFormat(quietFormat, quiet{}, logsapi.LoggingStableOptions)
}

type quiet struct{}

func (quiet) Feature() featuregate.Feature { return logsapi.LoggingStableOptions }

func (quiet) Create(_ logsapi.LoggingConfiguration, o logsapi.LoggingOptions) (logr.Logger, logsapi.RuntimeControl) {
	config := textlogger.NewConfig(textlogger.Output(withoutInfo{o.ErrorStream}))
	return textlogger.NewLogger(config), logsapi.RuntimeControl{}
}

// Warnings of every start and every end, one for each API group or kind.
var routine = [][]byte{[]byte("] Skipping API "), []byte("] Terminating all watchers from cacher ")}

// withoutInfo gets one whole message with each write; its first byte is the severity.
type withoutInfo struct{ to io.Writer }

func (w withoutInfo) Write(line []byte) (int, error) {
	if len(line) > 0 && line[0] == 'I' {
		return len(line), nil
	}
	for _, r := range routine {
		if bytes.Contains(line, r) {
			return len(line), nil
		}
	}
	return w.to.Write(line)
}
