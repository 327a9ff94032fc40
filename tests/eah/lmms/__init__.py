"""The plug-in of lmms-eval, beside a stand-in of lmms-eval and beside lmms-eval itself."""
