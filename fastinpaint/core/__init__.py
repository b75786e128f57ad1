"What every room stands on: settings, programs, files, downloads, devices, errors"
