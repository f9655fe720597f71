# What `cmake --install` puts where: headers, library, command, and the two descriptions of the
# library, for pkg-config and for find_package(). Both find their prefix by where they lie, so the
# installed tree can be moved.
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/zerocta)

install(TARGETS zerocta EXPORT zerocta-targets 
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/zerocta DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN *.h)
install(EXPORT zerocta-targets NAMESPACE zerocta:: DESTINATION ${package_dir})
if(ZEROCTA_TOOLS)
  install(TARGETS zerocta-cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

# A static library's programs link what the library needs.
set(needs_libraries OFF)
if(NOT BUILD_SHARED_LIBS)
  set(needs_libraries ON)
  set(pc_requires "libsodium")
  set(pc_libs " -pthread")
  foreach(library ${CMAKE_DL_LIBS})
    string(APPEND pc_libs " -l${library}")
  endforeach()
endif()
configure_package_config_file(cmake/zerocta-config.cmake.in zerocta-config.cmake
  INSTALL_DESTINATION ${package_dir} NO_SET_AND_CHECK_MACRO)
# Before 1.0 a new minor version may break what a program relies on.
write_basic_package_version_file(zerocta-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/zerocta-config.cmake
              ${PROJECT_BINARY_DIR}/zerocta-config-version.cmake DESTINATION ${package_dir})

file(RELATIVE_PATH pc_up ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
file(RELATIVE_PATH pc_libdir ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_LIBDIR})
file(RELATIVE_PATH pc_includedir ${CMAKE_INSTALL_PREFIX} ${CMAKE_INSTALL_FULL_INCLUDEDIR})
configure_file(cmake/zerocta.pc.in zerocta.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/zerocta.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
